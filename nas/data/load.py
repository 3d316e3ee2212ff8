"""Named data sets: one dict from a name to the function that loads it."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from nas.data.config import DataConfig
from nas.data.csv_list import load_csv
from nas.data.dataset import Dataset
from nas.data.digits import load_digits
from nas.data.fashion_mnist import has_fashion_mnist, load_fashion_mnist
from nas.data.imagefolder import load_imagefolder
from nas.data.npz import load_npz
from nas.data.torchvision_sets import has_cifar, load_cifar
from nas.errors import InvalidData

__all__ = ["SOURCES", "DataConfig", "load"]

SOURCES: dict[str, Callable[[DataConfig], Dataset]] = {
    "digits": load_digits,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar,
    "cifar100": load_cifar,
    "npz:FILE": load_npz,
    "imagefolder:DIR": load_imagefolder,
    "csv:FILE": load_csv,
}

# of the data sets that are downloaded: whether that has been done
DOWNLOADED: dict[str, Callable[[DataConfig], bool]] = {
    "fashion-mnist": has_fashion_mnist,
    "cifar10": has_cifar,
    "cifar100": has_cifar,
}


def load(config: DataConfig) -> Dataset:
    """Load a data set by its name. Raises InvalidData if it is not known, cannot be read or is not fit to classify."""
    for name, source in SOURCES.items():
        if _kind(name) == _kind(config.name):
            return source(config)
    raise InvalidData(f"unknown data {config.name!r}{_suggestion(config.name)}; choose one of {', '.join(SOURCES)}")


def _kind(name: str) -> tuple[str, str]:
    """What stands before a path: `npz:FILE` -> ("npz", ":")."""
    return name.partition(":")[:2]


def _suggestion(name: str) -> str:
    path = Path(name).expanduser()
    if path.is_dir():
        return f" (did you mean imagefolder:{name}?)"
    if (kind := path.suffix.lower().lstrip(".")) in ("npz", "csv"):
        return f" (did you mean {kind}:{name}?)"
    kinds = {_kind(known)[0]: known for known in SOURCES}
    close = get_close_matches(_kind(name.lower())[0], kinds, n=1, cutoff=0.5)
    return f" (did you mean {kinds[close[0]]}?)" if close else ""
