"""What is taken of torchvision.datasets: downloads of well-known data sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from nas.data.arrays import Arrays, ArraySource, Part, build
from nas.data.config import DataConfig
from nas.data.dataset import Dataset
from nas.errors import InvalidData

# torchvision is imported where it is used: it takes a second or two, which digits and npz files need not wait for


def load_cifar(config: DataConfig) -> Dataset:
    """The data sets `cifar10` and `cifar100` (Krizhevsky 2009): downloaded once. Raises InvalidData."""
    return build(ArraySource(config.name, partial(_read_cifar, config.name, config.cache), flip=True), config)


def download_fashion_mnist(root: Path) -> None:
    """Download Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) to root/FashionMNIST/raw. Raises InvalidData."""
    import torchvision.datasets

    with _explained(
        "fashion-mnist", root, "install Debian's dataset-fashion-mnist, or give the folder of its files as --data-dir"
    ):
        torchvision.datasets.FashionMNIST(str(root), download=True)


def _read_cifar(name: str, root: Path, part: Part) -> Arrays:
    import torchvision.datasets

    kinds = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    with _explained(name, root, "give the folder with its files as --data-dir, or another copy as --data npz:FILE"):
        data = kinds[name](str(root), train=part == "train", download=True)
    return Arrays(data.data, np.asarray(data.targets), tuple(data.classes))


def has_cifar(config: DataConfig) -> bool:
    """Whether a CIFAR data set is there, so that loading it downloads and unpacks nothing."""
    import torchvision.datasets
    from torchvision.datasets.utils import check_integrity

    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[config.name]
    folder = config.cache / kind.base_folder
    return all(check_integrity(str(folder / name), md5) for name, md5 in (*kind.train_list, *kind.test_list))


@contextmanager
def _explained(name: str, root: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidData(f"cannot download {name} to {str(root)!r}: {reason}; {remedy}") from error
