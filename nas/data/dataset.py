"""Split and Dataset: labelled images as values, and the batches that an epoch reads of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nas.seeding import numpy_rng
from nas.torch_seeding import generator

# of the images that run through a network at once on the CPU: 32 of 224 pixels
PIXELS = 32 * 224**2


class Split(Protocol):
    """N labelled images that are read in batches."""

    @property
    def labels(self) -> Tensor:
        """Class numbers, int64 (N,)."""

    def __len__(self) -> int:
        """The number of images N."""

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images uint8 (B, C, H, W) and labels int64 (B,), exactly in the order of the given index batches."""

    def to(self, device: torch.device | str) -> Split:
        """The same split, held on `device` where it lives in memory."""


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split in memory: images uint8 (N, C, H, W), labels int64 (N,), both on one device."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8 and self.images.ndim == 4, (self.images.dtype, self.images.shape)
        assert self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1], self.labels.shape

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images and labels on the device of the split; the indices may be on any device."""
        for batch in index_batches:
            index = batch.to(self.images.device)
            yield self.images.index_select(0, index), self.labels.index_select(0, index)

    def to(self, device: torch.device | str) -> ArraySplit:
        """The same split on `device`."""
        return ArraySplit(self.images.to(device), self.labels.to(device))

    def take(self, indices: Tensor) -> ArraySplit:
        """Copy the images at `indices` (int64, on any device) into a split of their own."""
        index = indices.to(self.images.device)
        return ArraySplit(self.images.index_select(0, index), self.labels.index_select(0, index))


@dataclass(frozen=True, eq=False)
class Subset:
    """A view of the images of `base` at `indices` (int64), which copies nothing."""

    base: Split
    indices: Tensor

    @property
    def labels(self) -> Tensor:
        """Class numbers of the view, int64 (N,)."""
        labels = self.base.labels
        return labels[self.indices.to(labels.device)]

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of `base` that the indices of the view stand for."""
        return self.base.batches([self.indices[batch.to(self.indices.device)] for batch in index_batches])

    def to(self, device: torch.device | str) -> Subset:
        """The same view of the base on `device`."""
        return Subset(self.base.to(device), self.indices)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set of square images, with what is needed to normalize and augment them.

    `mean` and `std` are per channel, for pixels scaled to 0..1. `flip` tells whether a mirrored image keeps its class,
    None where that is not known. `fingerprint` identifies the training data. Test data are read from disk only when
    `load_test` is called. `notes` are sentences on how it was read: what was left out, or drawn.
    """

    name: str
    train: Split
    val: Split
    load_test: Callable[[], Split]
    class_names: tuple[str, ...]
    channels: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool | None
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def epoch_batches(n: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Shuffled index batches (int64) of one epoch over n images, a function of (seed, epoch) alone.

    Every batch is full: the ragged tail is dropped, another one each epoch. If n < batch_size, there is one batch of n.
    """
    assert n > 0 and batch_size > 0, (n, batch_size)
    size = min(n, batch_size)
    order = torch.randperm(n, generator=generator(seed, "epoch", epoch))
    return list(order[: n - n % size].split(size))


def images_at_once(resolution: int, most: int, device: torch.device) -> int:
    """Images of a batch: `most`, but of large ones on the CPU fewer, whose features would take gigabytes."""
    return most if device.type != "cpu" else max(1, min(most, PIXELS // resolution**2))


def plain_batches(n: int, batch_size: int) -> list[Tensor]:
    """Index batches (int64) over all n images in order, for evaluation; the last one may be smaller."""
    assert n > 0 and batch_size > 0, (n, batch_size)
    return list(torch.arange(n).split(batch_size))


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split indices into (rest, held out), ascending; about `fraction` of each class, and at least one image, is held out.

    Each class needs at least two images. Its draw depends on the seed and on the class alone.
    """
    values = labels.numpy()
    held_out = np.zeros(len(values), dtype=bool)
    found, starts = np.unique(np.sort(values), return_index=True)
    for label, members in zip(found, np.split(np.argsort(values, kind="stable"), starts[1:]), strict=True):
        count = min(max(1, round(len(members) * fraction)), len(members) - 1)
        held_out[numpy_rng(seed, "split", int(label)).permutation(members)[:count]] = True
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


def held_out(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """As `stratified_split`; where a class has a single image, the held-out ones are drawn regardless of class."""
    if int(torch.bincount(labels).min()) > 1:
        return stratified_split(labels, fraction, seed)
    order = torch.from_numpy(numpy_rng(seed, "split").permutation(len(labels)))
    count = min(max(1, round(len(labels) * fraction)), len(labels) - 1)
    return order[count:].sort().values, order[:count].sort().values


def single_notes(labels: Tensor) -> tuple[str, ...]:
    """What is to be said of a data set where `held_out` cannot respect classes."""
    singles = int((torch.bincount(labels) == 1).sum())
    if not singles:
        return ()
    return (f"{singles} classes have one image: those for validation are drawn regardless of class, and may lack some",)
