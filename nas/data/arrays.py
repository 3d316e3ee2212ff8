"""Data sets in memory: from two pairs of arrays to a checked, split and resized Dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.data.augment import resize
from nas.data.config import DataConfig
from nas.data.dataset import ArraySplit, Dataset, held_out, single_notes
from nas.errors import InvalidData

Part = Literal["train", "test"]
CHUNK = 256  # images that are worked on at once, to bound the memory of wider number types


class Arrays(NamedTuple):
    """Images uint8 (N, H, W, C) or (N, H, W), integer labels (N,), and names of the classes, empty if they have none."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()


class Header(NamedTuple):
    """What can be known of an array before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class ArraySource:
    """Where arrays come from: `name` is used in messages, `read` gives either part, `flip` is that of the Dataset."""

    name: str
    read: Callable[[Part], Arrays]
    flip: bool | None


def build(source: ArraySource, config: DataConfig) -> Dataset:
    """Read the training arrays, check them, split them and take their statistics. Raises InvalidData."""
    split, names = _read(source, "train")
    class_names = check_labels(source.name, split.labels, names, config.least)
    native = tuple(split.images.shape[1:])
    side = config.resolution or native[-1]
    rest, chosen = held_out(split.labels, config.val_fraction, config.split_seed)
    resized = _resized(split, side)
    train = resized.take(rest)
    mean, std = channel_statistics(train.images)
    return Dataset(
        name=config.name,
        train=train,
        val=resized.take(chosen),
        load_test=partial(_load_test, source, native, len(class_names), side),
        class_names=class_names,
        channels=native[0],
        resolution=side,
        mean=mean,
        std=std,
        flip=source.flip,
        fingerprint=_fingerprint(split),
        notes=single_notes(split.labels),
    )


def check_headers(where: str, part: Part, images: Header, labels: Header) -> None:
    """Check types and shapes of one pair of arrays. Raises InvalidData."""
    names = f"{part}_images", f"{part}_labels"
    if images.dtype != np.uint8:
        raise InvalidData(f"{where}: {names[0]} is {images.dtype}; expected uint8 in 0..255, so convert it")
    if len(images.shape) not in (3, 4):
        raise InvalidData(f"{where}: {names[0]} has shape {images.shape}; reshape it to (N, H, W, C) or (N, H, W)")
    if 0 in images.shape:
        raise InvalidData(f"{where}: {names[0]} has shape {images.shape} and so no pixel; give at least one image")
    if images.shape[1] != images.shape[2]:
        raise InvalidData(f"{where}: {names[0]} has shape {images.shape}; expected square (N, H, W, C): crop or transpose it")
    if labels.dtype.kind not in "iu":
        raise InvalidData(f"{where}: {names[1]} is {labels.dtype}; expected integers 0..K-1, so number the classes")
    if len(labels.shape) != 1:
        raise InvalidData(f"{where}: {names[1]} has shape {labels.shape}; reshape it to (N,)")
    if labels.shape[0] != images.shape[0]:
        counts = f"{images.shape[0]} {names[0]} and {labels.shape[0]} {names[1]}"
        raise InvalidData(f"{where}: there are {counts}; give one label an image")


def check_same_kind(where: str, train: tuple[int, ...], test: tuple[int, ...]) -> None:
    """Check that test images have the shape (C, H, W) of the training images. Raises InvalidData."""
    if train != test:
        kinds = [f"{shape[0]} channels of {shape[1]}x{shape[2]} pixels" for shape in (train, test)]
        raise InvalidData(f"{where}: train_images have {kinds[0]}, test_images {kinds[1]}; bring them to one size")


def image_shape(header: Header) -> tuple[int, ...]:
    """The shape (C, H, W) of one image of a checked array."""
    _, height, width, *channels = header.shape
    return (channels[0] if channels else 1, height, width)


def check_labels(where: str, labels: Tensor, names: tuple[str, ...] = (), least: int = 2) -> tuple[str, ...]:
    """Check that training labels are 0..K-1 with `least` images each; returns the names of the classes. Raises InvalidData."""
    values, counts = np.unique(labels.numpy(), return_counts=True)
    if values[0] < 0:
        raise InvalidData(f"{where}: a training label is {values[0]}; number the classes 0..K-1")
    if values[-1] != len(values) - 1:
        missing = int(np.flatnonzero(values != np.arange(len(values)))[0])
        raise InvalidData(f"{where}: training labels go to {values[-1]}, but no image has {missing}; number the classes 0..K-1")
    if len(values) == 1:
        raise InvalidData(f"{where}: all training images are of one class; give at least two classes")
    if names and len(names) != len(values):
        raise InvalidData(f"{where}: class_names has {len(names)} names for {len(values)} classes; name each class once")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InvalidData(f"{where}: class_names has {twice!r} twice; name each class once")
    class_names = names or tuple(map(str, values))
    if counts.min() < least:
        which = f"class {class_names[int(counts.argmin())]!r} has 1 training image"
        raise InvalidData(f"{where}: {which}; give at least 2, one to train on and one to validate on")
    return class_names


def check_test_labels(where: str, labels: np.ndarray, classes: int) -> None:
    """Check that test labels (N,) are of the `classes` that training has. Raises InvalidData."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise InvalidData(f"{where}: a test label is {wrong}; training has the classes 0..{classes - 1}: use the same")


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), for pixels scaled to 0..1.

    Sums are integers, so the numbers do not depend on the machine. A constant channel gets the deviation 1: nothing to scale.
    """
    channels = images.shape[1]
    total, squares = np.zeros((2, channels), dtype=np.int64)
    for chunk in images.split(CHUNK):  # in NumPy, since torch's threads cost seconds here on a machine that has other work
        pixels = chunk.numpy().transpose(1, 0, 2, 3).reshape(channels, -1)
        total += pixels.sum(1, dtype=np.int64)
        squares += np.square(pixels, dtype=np.int32).sum(1, dtype=np.int64)
    count = images.numel() // channels
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0)
    std = np.where(variance > 0, np.sqrt(variance) / 255, 1.0)
    return tuple((mean / 255).tolist()), tuple(std.tolist())


def _read(source: ArraySource, part: Part) -> tuple[ArraySplit, tuple[str, ...]]:
    images, labels, names = source.read(part)
    header = Header(images.shape, images.dtype)
    check_headers(source.name, part, header, Header(labels.shape, labels.dtype))
    last = images.reshape(*images.shape[:3], -1)
    pixels = torch.from_numpy(np.ascontiguousarray(last.transpose(0, 3, 1, 2)))
    return ArraySplit(pixels, torch.from_numpy(labels.astype(np.int64))), names


def _resized(split: ArraySplit, side: int) -> ArraySplit:
    if split.images.shape[-1] == side:
        return split
    return ArraySplit(torch.cat([resize(chunk, side) for chunk in split.images.split(CHUNK)]), split.labels)


def _load_test(source: ArraySource, native: tuple[int, ...], classes: int, side: int) -> ArraySplit:
    split, _ = _read(source, "test")
    check_same_kind(source.name, native, tuple(split.images.shape[1:]))
    check_test_labels(source.name, split.labels.numpy(), classes)
    return _resized(split, side)


def _fingerprint(split: ArraySplit) -> str:
    digest = hashlib.sha256(str(tuple(split.images.shape)).encode())
    digest.update(split.images.numpy().data)
    digest.update(split.labels.numpy().data)
    return digest.hexdigest()[:12]
