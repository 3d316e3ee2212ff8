"""Images in files: splits that are decoded by worker processes while the network trains, and the data set made of them."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nas.data.arrays import check_labels
from nas.data.config import DataConfig
from nas.data.dataset import Dataset, Split, Subset, held_out, single_notes, stratified_split
from nas.data.decoding import UNDECODABLE, check_images, decode, reason_of
from nas.errors import InvalidData

RESOLUTION = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# of images without a folder for testing: constants, so that the test images are the same in every run
TEST_FRACTION, TEST_SEED = 0.2, 0
# images that are opened before anything is trained: all of ImageNet's validation split, some of a larger folder
OPENED, OPENED_OF_TRAINING = 50_000, 10_000


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Images in files, decoded to RGB of resolution x resolution by `workers` processes (0: by this one)."""

    paths: Sequence[str]
    labels: Tensor
    resolution: int
    workers: int

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, index_batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield decoded images and labels on the CPU, in order. Raises InvalidData if a file cannot be decoded."""
        loader = DataLoader(
            _DecodedBatches(self.paths, self.resolution, [batch.tolist() for batch in index_batches]),
            batch_size=None,  # an item is a batch already
            num_workers=min(self.workers, _processors()) if len(index_batches) > 1 else 0,
            worker_init_fn=_left_to_the_end,
            generator=torch.Generator(),  # of its own, or it would draw from the global one
        )
        for batch, images in zip(index_batches, loader, strict=True):
            if isinstance(images, str):
                raise InvalidData(images)
            yield images, self.labels[batch.cpu()]

    def to(self, device: torch.device | str) -> FileSplit:
        """The split itself: files are decoded on the CPU."""
        return self


@dataclass(frozen=True)
class Parts:
    """Listed images: `train`, those for testing, and those for validation where the user names them.

    What is None is drawn from `train`. `where` is the folder or file that messages name, `notes` what is told of it. For the
    fingerprint names are taken below `base`, and `salt` is what they do not tell.
    """

    where: Path
    base: Path
    class_names: tuple[str, ...]
    train: tuple[Sequence[str], np.ndarray]
    test: tuple[Sequence[str], np.ndarray] | None = None
    val: tuple[Sequence[str], np.ndarray] | None = None
    notes: tuple[str, ...] = ()
    salt: bytes = b""


def build_from_files(parts: Parts, config: DataConfig) -> Dataset:
    """Split what was listed, and open images without decoding them. Raises InvalidData before anything is trained.

    Images are RGB and normalized with ImageNet's statistics, as pretrained networks expect them.
    """
    whole = _split(parts.train, config)
    train, test, notes = _tested(parts, whole, config)
    class_names = check_labels(str(parts.where), train.labels, parts.class_names, config.least)
    val: Split
    if parts.val is not None:
        val = _split(parts.val, config)
    else:
        rest, chosen = held_out(train.labels, config.val_fraction, config.split_seed)
        notes = (*notes, *single_notes(train.labels))
        train, val = _view(train, rest), _view(train, chosen)
    for listed, most in ((parts.test, OPENED), (parts.val, OPENED), (parts.train, OPENED_OF_TRAINING)):
        check_images(listed[0] if listed is not None else (), most)
    return Dataset(
        name=config.name,
        train=train,
        val=val,
        load_test=_Ready(test),
        class_names=class_names,
        channels=3,
        resolution=whole.resolution,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        flip=None,
        fingerprint=_fingerprint(parts),
        notes=(*parts.notes, *notes),
    )


@dataclass(frozen=True)
class _Ready:
    """A function that can be sent to another process."""

    split: Split

    def __call__(self) -> Split:
        return self.split


def _tested(parts: Parts, whole: FileSplit, config: DataConfig) -> tuple[Split, Split, tuple[str, ...]]:
    """What may be trained on, what is tested on, and what is to be said of it. Raises InvalidData."""
    if parts.test is not None:
        test = _split(parts.test, config)
        missing = np.setdiff1d(np.arange(len(parts.class_names)), test.labels.numpy())
        return whole, test, (_untested(parts.class_names, missing),) if len(missing) else ()
    counts = np.bincount(whole.labels.numpy(), minlength=len(parts.class_names))
    if counts.min() < 1 + config.least:
        few = f"class {parts.class_names[int(counts.argmin())]!r} has {counts.min()} of {len(whole)} images"
        raise InvalidData(
            f"{parts.where}: {few}, too few to train, validate and test on; give at least {1 + config.least} of each, or a "
            "folder of their own to those for testing"
        )
    rest, chosen = stratified_split(whole.labels, TEST_FRACTION, TEST_SEED)
    told = f"{len(chosen)} of {len(whole)} images, {TEST_FRACTION:.0%} of each class by a fixed draw, are kept for testing"
    return _view(whole, rest), _view(whole, chosen), (told,)


def _untested(names: tuple[str, ...], missing: np.ndarray) -> str:
    few = ", ".join(names[i] for i in missing[:3]) + (", ..." if len(missing) > 3 else "")
    return f"{len(missing)} of {len(names)} classes have no test image ({few}): nothing is known of them there"


def _split(listed: tuple[Sequence[str], np.ndarray], config: DataConfig) -> FileSplit:
    return FileSplit(listed[0], torch.from_numpy(listed[1]), config.resolution or RESOLUTION, config.workers)


def _view(split: Split, indices: Tensor) -> Subset:
    if isinstance(split, Subset):
        return Subset(split.base, split.indices[indices])
    return Subset(split, indices)


def _left_to_the_end(worker: int) -> None:
    """Workers are ended by the process that reads from them; a signal to the whole group is that one's to tell of."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _processors() -> int:
    """The processors that this process may use: more workers would wait for each other, of which torch warns."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _DecodedBatches(TorchDataset):
    """Decode one batch an item: uint8 (B, 3, H, W), or the message for the user, as an exception would arrive with a trace."""

    def __init__(self, paths: Sequence[str], resolution: int, index_batches: list[list[int]]) -> None:
        self.paths, self.resolution, self.index_batches = paths, resolution, index_batches

    def __len__(self) -> int:
        return len(self.index_batches)

    def __getitem__(self, number: int) -> Tensor | str:
        decoded = []
        for index in self.index_batches[number]:
            try:
                decoded.append(decode(self.paths[index], self.resolution))
            except UNDECODABLE as error:
                return f"cannot decode the image {self.paths[index]!r}: {reason_of(error)}; replace it or remove it"
        return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def _fingerprint(parts: Parts) -> str:
    """Of the names and sizes of what is trained and validated on, and of `salt`."""
    digest, base, root = hashlib.sha256(parts.salt), os.path.join(parts.base, ""), os.path.join(parts.where, "")
    for listed in (parts.train, parts.val):
        for path in listed[0] if listed is not None else ():
            # a folder may be moved
            name = path.removeprefix(base) if path.startswith(base) else path.removeprefix(root)
            try:
                digest.update(b"%s\0%d\n" % (os.fsencode(name), os.stat(path).st_size))
            except OSError as error:
                raise InvalidData(f"cannot read {path!r} ({error.strerror}); restore it or leave it out") from error
    return digest.hexdigest()[:12]
