"""Image folders: DIR/train/CLASS/*.jpg beside DIR/test, DIR/val or DIR/validation, or classes alone, which are split here."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from nas.data.config import DataConfig
from nas.data.dataset import Dataset
from nas.data.file_split import Parts, build_from_files
from nas.data.listing import Listing, folders_of, left_out_words, list_classes
from nas.errors import InvalidData

# in any case of letters; the first one that is there
TRAIN, TEST, VAL = ("train", "training"), ("test", "testing"), ("val", "validation", "valid", "dev", "eval")
_LAYOUT = "train/CLASS/*.jpg and test/CLASS/*.jpg, or CLASS/*.jpg alone"


def load_imagefolder(config: DataConfig) -> Dataset:
    """The data set `imagefolder:DIR`. Raises InvalidData.

    DIR/test is for testing, and DIR/val (or DIR/validation) for validation; without DIR/test, DIR/val is for testing, and
    validation comes out of DIR/train. Without either, or without DIR/train, a fifth of each class is for testing.
    """
    root = config.location
    if not root.is_dir():
        raise InvalidData(f"no folder {str(root)!r}; give one that holds {_LAYOUT}")
    names = folders_of(root)
    train, test, val = (_first(names, wanted) for wanted in (TRAIN, TEST, VAL))
    if train is not None and not folders_of(root / train) and len(names) > 1 and not (test or val):
        train = None  # a class of this name
    if train is None and (test or val):
        raise InvalidData(f"{root}: has {test or val} and no folder train; put the images to train on in {root}/train/CLASS/")
    if train is None:
        return build_from_files(_flat(root, names), config)
    if test is None:
        test, val = val, None
    return build_from_files(_parts(root, train, test, val), config)


def _flat(root: Path, names: list[str]) -> Parts:
    """Classes alone."""
    if not names:
        raise InvalidData(f"{root}: has no class folders{_table_in(root)}; give a folder that holds {_LAYOUT}")
    listing = list_classes(root)
    return Parts(root, root, listing.class_names, (listing.paths, listing.labels), notes=_notes(listing))


def _parts(root: Path, train: str, test: str | None, val: str | None) -> Parts:
    listing = list_classes(root / train)
    others = {name: list_classes(root / name) for name in (test, val) if name is not None}
    labelled = {name: (other.paths, _by_name(listing, other, root, train, name)) for name, other in others.items()}
    notes = _notes(listing, *others.values())
    if val is not None:
        notes = (*notes, f"validation images are the {len(others[val].paths)} of {val}")
    return Parts(
        root,
        root / train,
        listing.class_names,
        (listing.paths, listing.labels),
        labelled[test] if test is not None else None,
        labelled[val] if val is not None else None,
        notes,
    )


def _by_name(listing: Listing, other: Listing, root: Path, train: str, name: str) -> np.ndarray:
    """Labels of another folder in the numbers of the training classes. Raises InvalidData for a class that those lack."""
    if strange := sorted(set(other.class_names) - set(listing.class_names)):
        few = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
        raise InvalidData(
            f"{root}: {name} has the class folders {few}, and {train} does not; it may have fewer classes, but no others"
        )
    number = {known: i for i, known in enumerate(listing.class_names)}
    return np.repeat(np.array([number[known] for known in other.class_names], dtype=np.int64), other.counts)


def _notes(*listings: Listing) -> tuple[str, ...]:
    left_out: Counter[str] = sum((listing.left_out for listing in listings), Counter())
    return (left_out_words(left_out),) if left_out else ()


def _first(names: list[str], wanted: tuple[str, ...]) -> str | None:
    """The folder that has one of the wanted names, whatever the case of its letters."""
    by_lower = {name.lower(): name for name in reversed(names)}
    return next((by_lower[name] for name in wanted if name in by_lower), None)


def _table_in(root: Path) -> str:
    tables = sorted(name for name in os.listdir(root) if name.lower().endswith((".csv", ".tsv")))
    return f" (is --data csv:{root / tables[0]} meant?)" if tables else ""
