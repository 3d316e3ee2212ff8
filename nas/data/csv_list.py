"""Image files that are listed in a CSV file with their labels."""

from __future__ import annotations

import csv
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.data.config import DataConfig
from nas.data.dataset import Dataset
from nas.data.file_split import Parts, build_from_files
from nas.data.listing import left_out_words, reason_for
from nas.errors import InvalidData

# names of columns that are understood, in any case of letters
FILE = ("file", "file_name", "filename", "path", "filepath", "image", "image_path", "img")
LABEL = ("label", "class", "class_name", "target", "category")
SPLIT = ("split", "set", "subset", "partition")
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval"), "val"),
}
LARGEST_FILE, LONGEST_FIELD = 2**30, 10_000
_NAMED = 3


@dataclass(frozen=True)
class Row:
    """One image: its path, its label as it is written, and its part, empty where none is named."""

    path: str
    label: str
    part: str


def load_csv(config: DataConfig) -> Dataset:
    """The data set `csv:FILE`: rows of file, label and, if it likes, split (train, val, test). Raises InvalidData.

    Paths are relative to the folder of FILE. Without rows for testing, a fifth of each class is; without rows for
    validation, those come out of the training rows. Classes are sorted, by number where all labels are numbers.
    """
    path = config.location
    rows = list(_rows(path))
    rows, left_out = _with_images(path, rows)
    names = _sorted_classes({row.label for row in rows})
    number = {name: i for i, name in enumerate(names)}
    parts = {part: [row for row in rows if (row.part or "train") == part] for part in ("train", "val", "test")}
    if not parts["train"]:
        raise InvalidData(f"{path}: no row is for training; write train in the column split, or leave the column out")
    if strange := sorted({row.label for row in rows} - {row.label for row in parts["train"]}):
        raise InvalidData(f"{path}: no training row has the class {strange[0]!r}; add some, or leave its rows out")
    listed = {
        part: ([row.path for row in chosen], np.array([number[row.label] for row in chosen], dtype=np.int64))
        for part, chosen in parts.items()
        if chosen
    }
    notes = (left_out_words(left_out),) if left_out else ()
    salt = "\n".join(row.label for part in ("train", "val") for row in parts[part]).encode("utf-8", "surrogateescape")
    return build_from_files(
        Parts(path, path.parent, names, listed["train"], listed.get("test"), listed.get("val"), notes, salt), config
    )


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a file with a header, or of one whose first two columns are file and label. Raises InvalidData."""
    if not path.is_file():
        raise InvalidData(f"no file {str(path)!r}; give a CSV file with the columns file and label")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InvalidData(f"{str(path)!r} has {path.stat().st_size} bytes; give a list of at most {LARGEST_FILE}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(LONGEST_FIELD)
            file.seek(0)
            lines = csv.reader(file, delimiter=max(",;\t", key=first.count))
            yield from _parsed(path, lines)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidData(f"cannot read {str(path)!r} as CSV ({error}); write it in UTF-8, with file and label") from error


def _parsed(path: Path, lines: Iterable[Sequence[str]]) -> Iterator[Row]:
    columns: tuple[int, int, int | None] | None = None
    for number, fields in enumerate(lines, 1):
        values = [field.strip() for field in fields]
        if not any(values):
            continue
        if columns is None:
            columns, is_header = _columns(path, values)
            if is_header:
                continue
        if len(values) <= max(c for c in columns if c is not None):
            raise InvalidData(f"{path}: line {number} has {len(values)} columns ({values[0][:60]!r}); expected file and label")
        name, label, part = (values[c] if c is not None else "" for c in columns)
        if not (name and label):
            raise InvalidData(f"{path}: line {number} has no {'label' if name else 'file'}; complete it or remove it")
        if part and part.lower() not in PARTS:
            raise InvalidData(f"{path}: line {number} has the split {part[:60]!r}; expected train, val or test")
        yield Row(os.path.join(path.parent, name), label, PARTS.get(part.lower(), ""))


def _columns(path: Path, first: Sequence[str]) -> tuple[tuple[int, int, int | None], bool]:
    """Where file, label and split stand, and whether the first line is a header. Raises InvalidData."""
    lower = [name.lower() for name in first]
    found = [next((lower.index(n) for n in names if n in lower), None) for names in (FILE, LABEL, SPLIT)]
    if found[0] is not None and found[1] is not None:
        return (found[0], found[1], found[2]), True
    if len(first) > 1 and not reason_for(first[0]):
        return (0, 1, None), False
    raise InvalidData(f"{path}: has the columns {', '.join(first)[:200]}; expected file and label in a first line")


def _with_images(path: Path, rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """The rows whose files can be images. Raises InvalidData for files that are not there, or are no regular ones."""
    left_out: Counter[str] = Counter()
    kept, missing = [], []
    for row in rows:
        if reason := reason_for(os.path.basename(row.path)):
            left_out[reason] += 1
            continue
        if _is_regular(row.path):
            kept.append(row)
        else:
            missing.append(row.path)
    if missing:
        few = ", ".join(map(repr, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        raise InvalidData(
            f"{path}: {len(missing)} of {len(rows)} rows name no file ({few}); paths are relative to {path.parent}"
        )
    if not kept:
        words = f" ({left_out_words(left_out)})" if left_out else ""
        raise InvalidData(f"{path}: names no images{words}; write one row for each, with file and label")
    return kept, left_out


def _is_regular(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def _sorted_classes(labels: set[str]) -> tuple[str, ...]:
    """Sorted by number where all are numbers, else as texts."""
    if all(label.isascii() and label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (len(label.lstrip("0")), label.lstrip("0"), label)))
    return tuple(sorted(labels))
