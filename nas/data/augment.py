"""Normalization and augmentation of whole batches, on the device where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.dataset import Dataset
from nas.errors import InvalidSetting


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied. Raises InvalidSetting if a number is out of its range.

    Images are shifted by up to `crop_padding` pixels in both directions, mirrored with probability 1/2 if `flip`, covered by a
    square of side `cutout` (DeVries & Taylor 2017, arXiv:1708.04552), and blended in pairs with a weight drawn from
    Beta(mixup, mixup) (Zhang et al. 2018, arXiv:1710.09412). 0 turns a part off. Mixup needs to know the number of `classes`.
    """

    crop_padding: int
    flip: bool
    cutout: int = 0
    mixup: float = 0.0
    classes: int = 0

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout", "mixup"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidSetting(f"{name} is {getattr(self, name)}; choose 0 to turn it off, or more")
        if self.mixup and not self.classes:
            raise InvalidSetting(f"mixup is {self.mixup}, but the number of classes is not set; set classes")


def default_augmentation(dataset: Dataset) -> Augmentation:
    """Shift by an eighth of the side (1 pixel for digits, 4 for CIFAR), and mirror where that is known to keep the class."""
    return Augmentation(max(1, dataset.resolution // 8), bool(dataset.flip), classes=dataset.classes)


@dataclass(frozen=True)
class Wanted:
    """What a user says of the augmentation; None means that of the data set."""

    crop: int | None = None
    flip: bool | None = None
    cutout: int = 0
    mixup: float = 0.0


def augmentation_for(dataset: Dataset, wanted: Wanted) -> Augmentation:
    """The augmentation of a data set with what the user wants. Raises InvalidSetting for what would hide the images."""
    own, side = default_augmentation(dataset), dataset.resolution
    if wanted.crop is not None and wanted.crop >= side:
        raise InvalidSetting(f"--crop {wanted.crop} shifts images of {side} pixels out of view; choose at most {side - 1}")
    if wanted.cutout > side:
        raise InvalidSetting(f"--cutout {wanted.cutout} hides images of {side} pixels; choose at most {side}")
    return replace(
        own,
        crop_padding=own.crop_padding if wanted.crop is None else wanted.crop,
        flip=own.flip if wanted.flip is None else wanted.flip,
        cutout=wanted.cutout,
        mixup=wanted.mixup,
    )


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float], device: torch.device | str) -> Tensor:
    """Move uint8 images (N, C, H, W) to `device` and scale them to (x / 255 - mean) / std: float32 in channels_last format."""
    # what comes to the processor has to be there before it is read
    moved = images.to(device, non_blocking=torch.device(device).type != "cpu")
    moved = moved.to(torch.float32, memory_format=torch.channels_last)
    centre, spread = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
    scale, shift = (value.to(torch.float32).to(device) for value in (1 / (255 * spread), -centre / spread))
    return torch.addcmul(shift, moved, scale)


def resize(images: Tensor, side: int) -> Tensor:
    """Resize images (N, C, H, W), uint8 or float, to side x side: bilinear, antialiased; as they are if they have that size."""
    if images.shape[-2:] == (side, side):
        return images
    if images.dtype == torch.uint8:
        return resize(images.float(), side).round_().clamp_(0, 255).to(torch.uint8)
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def augment(images: Tensor, targets: Tensor, spec: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Vary normalized images (N, C, H, W) with targets int64 (N,).

    What a shift or a cutout uncovers is 0, the mean. Targets are returned as they are, or with mixup as probabilities, float32
    (N, classes). All random numbers come from `generator`, drawn on its own device: shifts, flips, cutout centres, mixup.
    """
    images = _shift_and_flip(images, spec, generator)
    if spec.cutout:
        images = _cutout(images, spec.cutout, generator)
    if spec.mixup:
        return _mixup(images, targets, spec, generator)
    return images, targets


def _shift_and_flip(images: Tensor, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """Copy pixels by one flat gather out of the padded batch, which is exact and several times faster than indexing."""
    (count, channels, height, width), padding = images.shape, spec.crop_padding
    rows = torch.arange(height, device=images.device).expand(count, height)
    columns = torch.arange(width, device=images.device).expand(count, width)
    if padding:
        offsets = _randint(2 * padding + 1, (2, count), images, generator)
        rows, columns = rows + offsets[0, :, None], columns + offsets[1, :, None]
    if spec.flip:
        mirrored = _randint(2, (count, 1), images, generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    if not (padding or spec.flip):
        return images
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    starts = torch.arange(count, device=images.device)[:, None] * padded.shape[1]
    pixels = (starts + rows)[:, :, None] * padded.shape[2] + columns[:, None, :]
    chosen = padded.reshape(-1, channels).index_select(0, pixels.flatten())
    return chosen.view(count, height, width, channels).permute(0, 3, 1, 2)


def _cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cover one square an image, centred anywhere, so that part of it may lie outside."""
    count, _, height, width = images.shape
    covered = []
    for length in (height, width):
        first = _randint(length, (count, 1), images, generator) - side // 2
        position = torch.arange(length, device=images.device)
        covered.append((position >= first) & (position < first + side))
    return torch.where(covered[0][:, None, :, None] & covered[1][:, None, None, :], 0, images)


def _mixup(images: Tensor, targets: Tensor, spec: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend the batch with a permutation of itself; one weight a batch, as in the paper's code."""
    order = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
    # torch draws from Beta only with its global generator, so NumPy draws, seeded by ours
    seed = int(torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device))
    weight = float(np.random.default_rng(seed).beta(spec.mixup, spec.mixup))
    one_hot = F.one_hot(targets, spec.classes).float()
    return torch.lerp(images[order], images, weight), torch.lerp(one_hot[order], one_hot, weight)


def _randint(high: int, shape: tuple[int, ...], images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw on the generator's device, so that one seed gives the same images on every device."""
    return torch.randint(high, shape, generator=generator, device=generator.device).to(images.device, non_blocking=True)
