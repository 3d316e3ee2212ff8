"""Image folders: DIR/train/CLASS/*.jpg, decoded by worker processes while the network trains."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nas.data.arrays import check_labels
from nas.data.config import DataConfig
from nas.data.dataset import Dataset, Subset, stratified_split
from nas.data.torchvision_sets import list_images
from nas.errors import InvalidData

RESOLUTION = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNDECODABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # PIL raises all of these for broken files


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """Images in files, decoded to RGB of resolution x resolution by `workers` processes (0: by this one)."""

    paths: tuple[str, ...]
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
            generator=torch.Generator(),  # of its own, or it would draw from the global one
        )
        for batch, images in zip(index_batches, loader, strict=True):
            if isinstance(images, str):
                raise InvalidData(images)
            yield images, self.labels[batch.cpu()]

    def to(self, device: torch.device | str) -> FolderSplit:
        """The split itself: files are decoded on the CPU."""
        return self


def _processors() -> int:
    """The processors that this process may use: more workers would wait for each other, of which torch warns."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _DecodedBatches(TorchDataset):
    """Decode one batch an item: uint8 (B, 3, H, W), or the message for the user, as an exception would arrive with a trace."""

    def __init__(self, paths: tuple[str, ...], resolution: int, index_batches: list[list[int]]) -> None:
        self.paths, self.resolution, self.index_batches = paths, resolution, index_batches

    def __len__(self) -> int:
        return len(self.index_batches)

    def __getitem__(self, number: int) -> Tensor | str:
        decoded = []
        for index in self.index_batches[number]:
            try:
                decoded.append(decode(self.paths[index], self.resolution))
            except _UNDECODABLE as error:
                return f"cannot decode the image {self.paths[index]!r}: {error}; replace it or remove it"
        return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()


def decode(path: str, resolution: int) -> np.ndarray:
    """Read an image as RGB, bring its shorter side to `resolution` and cut out the centre: uint8 (H, W, 3)."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    width, height = (max(resolution, int(side * resolution / min(image.size))) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    return np.asarray(image.crop((left, top, left + resolution, top + resolution)))


def load_imagefolder(config: DataConfig) -> Dataset:
    """The data set `imagefolder:DIR`; DIR/test, or else DIR/val, is the test split, and validation comes out of DIR/train.

    Images are RGB and normalized with ImageNet's statistics, as pretrained networks expect them. Raises InvalidData.
    """
    root, resolution = config.location, config.resolution or RESOLUTION
    if not root.is_dir():
        raise InvalidData(f"no folder {str(root)!r}; give one that holds train/CLASS/*.jpg and test/CLASS/*.jpg")
    test_folder = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if test_folder is None:
        raise InvalidData(f"{root}: has neither a folder test nor val; add test/CLASS/*.jpg")
    split, class_names = _read(root / "train", resolution, config.workers)
    check_labels(str(root), split.labels, class_names)
    _check_same_classes(class_names, test_folder)
    rest, held_out = stratified_split(split.labels, config.val_fraction, config.split_seed)
    return Dataset(
        name=config.name,
        train=Subset(split, rest),
        val=Subset(split, held_out),
        load_test=partial(_load_test, test_folder, resolution, config.workers),
        class_names=class_names,
        channels=3,
        resolution=resolution,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        flip=None,
        fingerprint=_fingerprint(root / "train", split.paths),
    )


def _read(folder: Path, resolution: int, workers: int) -> tuple[FolderSplit, tuple[str, ...]]:
    try:
        class_names, samples = list_images(folder)
    except FileNotFoundError as error:
        raise InvalidData(f"{folder}: no class folders found; put the images in {folder}/CLASS/") from error
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    empty = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if empty:
        raise InvalidData(f"{folder}: no images in {', '.join(empty)}; add some or remove the folder")
    return FolderSplit(tuple(path for path, _ in samples), labels, resolution, workers), class_names


def _check_same_classes(class_names: tuple[str, ...], test_folder: Path) -> None:
    found = {path.name for path in test_folder.iterdir() if path.is_dir()}
    different = sorted(found.symmetric_difference(class_names))
    if different:
        names = f"{test_folder.name} and train differ in the class folders {', '.join(different)}"
        raise InvalidData(f"{test_folder.parent}: {names}; both need the same classes")


def _load_test(folder: Path, resolution: int, workers: int) -> FolderSplit:
    return _read(folder, resolution, workers)[0]


def _fingerprint(root: Path, paths: tuple[str, ...]) -> str:
    lines = (f"{Path(path).relative_to(root).as_posix()}\0{Path(path).stat().st_size}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]
