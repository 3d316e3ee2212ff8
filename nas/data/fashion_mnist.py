"""Fashion-MNIST from its four idx files (Xiao et al. 2017, arXiv:1708.07747)."""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from nas.data.arrays import Arrays, ArraySource, Part, build
from nas.data.config import DataConfig
from nas.data.dataset import Dataset
from nas.data.torchvision_sets import download_fashion_mnist
from nas.errors import InvalidData
from nas.files import read_regular

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_UNSIGNED_BYTE = 8  # the idx format's code


def load_fashion_mnist(config: DataConfig) -> Dataset:
    """The data set `fashion-mnist`: from data_dir, else from Debian's package, else downloaded. Raises InvalidData."""
    downloaded, folder = config.cache / "FashionMNIST" / "raw", _folder(config)
    if folder is None:
        download_fashion_mnist(config.cache)
    return build(ArraySource(config.name, partial(_read, folder or downloaded), flip=True), config)


def has_fashion_mnist(config: DataConfig) -> bool:
    """Whether the data set is there, so that loading it downloads nothing."""
    return _folder(config) is not None


def _folder(config: DataConfig) -> Path | None:
    folders = (config.cache, config.cache / "FashionMNIST" / "raw", *([] if config.data_dir else [DEBIAN_FOLDER]))
    return next((folder for folder in folders if _is_complete(folder)), None)


def read_idx(path: Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, compressed if its name ends in .gz. Raises InvalidData."""
    try:
        data = gzip.decompress(read_regular(path)) if path.suffix == ".gz" else read_regular(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidData(f"cannot read {str(path)!r}: {error}; fetch it again") from error
    rank = data[3] if len(data) > 3 and data[:3] == bytes((0, 0, _UNSIGNED_BYTE)) else 0
    start = 4 + 4 * rank
    if rank == 0 or len(data) < start:
        raise InvalidData(f"{str(path)!r} is no idx file of unsigned bytes; fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(data[4:start], dtype=">u4"))
    if len(data) - start != prod(shape):
        raise InvalidData(f"{str(path)!r} holds {len(data) - start} bytes of {prod(shape)}; fetch it again")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape).copy()


def _read(folder: Path, part: Part) -> Arrays:
    images, labels = (read_idx(_find(folder, name) or folder / name) for name in _FILES[part])
    return Arrays(images, labels, CLASS_NAMES)


def _is_complete(folder: Path) -> bool:
    return all(_find(folder, name) for names in _FILES.values() for name in names)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
