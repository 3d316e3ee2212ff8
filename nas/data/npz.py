"""Data sets in one .npz file, as `numpy.savez` writes it. Claimed sizes are first compared with stored ones and with memory."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from nas.data.arrays import (
    Arrays,
    ArraySource,
    Header,
    Part,
    build,
    check_headers,
    check_same_kind,
    check_test_labels,
    image_shape,
)
from nas.data.config import DataConfig
from nas.data.dataset import Dataset
from nas.data.memory import check_memory
from nas.errors import InvalidData

REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
NAMES = "class_names"
# what zipfile, its decompressors and NumPy's reader of headers raise for files that are broken, or made to look so
_UNREADABLE = (
    OSError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError, AttributeError, SyntaxError,
    MemoryError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError,
)  # fmt: skip
LONGEST_NAME = 1000  # characters of the name of a class
_LONGEST_HEADER = 10_000
# of the bytes of images and labels: the array, its copy with channels first, and what is taken of it for training
COPIES = 3
_NAMED = 8
T = TypeVar("T")


def load_npz(config: DataConfig) -> Dataset:
    """The data set `npz:FILE`, with the arrays REQUIRED and, if it likes, class_names. Raises InvalidData.

    Of the test arrays only types, shapes and the range of the labels are looked at, so that what does not fit is told before
    a long run, not after it.
    """
    path = config.location
    headers = _headers(path)
    for part in ("train", "test"):
        images = headers[f"{part}_images"]
        check_headers(str(path), part, images, headers[f"{part}_labels"])
        _check_room(path, f"{part}_images", images, config.resolution)
    check_same_kind(str(path), image_shape(headers["train_images"]), image_shape(headers["test_images"]))
    if NAMES in headers:
        _check_names(path, headers[NAMES], headers["train_labels"])
    data = build(ArraySource(str(path), partial(_read, path), flip=None), config)
    check_test_labels(str(path), _opened(path, lambda archive: _array(archive, "test_labels")), data.classes)
    return data


def _headers(path: Path) -> dict[str, Header]:
    """The headers of the arrays that are needed. Raises InvalidData, also for one whose size is not that of what is stored."""
    if not path.is_file():
        raise InvalidData(f"no file {str(path)!r}; give the path of a file that numpy.savez wrote")
    return _opened(path, lambda archive: _known_headers(path, archive))


def _known_headers(path: Path, archive: zipfile.ZipFile) -> dict[str, Header]:
    there = {name.removesuffix(".npy") for name in archive.namelist()}
    if missing := [name for name in REQUIRED if name not in there]:
        found = f"the arrays {_few(there)}" if there else "its arrays, of which it has none"
        raise InvalidData(f"{path}: {', '.join(missing)} not found among {found}; add what is missing")
    return {name: _read_member(archive, name, lambda file, header: header) for name in (*REQUIRED, NAMES) if name in there}


def _read(path: Path, part: Part) -> Arrays:
    def read(archive: zipfile.ZipFile) -> Arrays:
        has_names = any(name.removesuffix(".npy") == NAMES for name in archive.namelist())
        names = tuple(map(_text, _array(archive, NAMES).tolist())) if has_names and part == "train" else ()
        return Arrays(_array(archive, f"{part}_images"), _array(archive, f"{part}_labels"), names)

    return _opened(path, read)


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return _read_member(archive, name, lambda file, header: np.lib.format.read_array(file, allow_pickle=False))


def _read_member(archive: zipfile.ZipFile, name: str, read: Callable[[IO[bytes], Header], T]) -> T:
    """Read an array once its claim is checked. Raises ValueError, and all of _UNREADABLE."""
    member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        # the later versions of the format differ in the width and the encoding of the header alone
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(file, max_header_size=_LONGEST_HEADER)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    claimed, stored = prod(shape) * dtype.itemsize, archive.getinfo(member).file_size - start
    if min(shape, default=0) < 0 or claimed != stored:
        raise ValueError(f"{name} claims the shape {_brief(shape)} of {dtype}, {claimed} bytes, and {stored} are stored")
    with archive.open(member) as file:
        return read(file, Header(tuple(map(int, shape)), dtype))


def _check_room(path: Path, name: str, header: Header, resolution: int | None) -> None:
    """Raise InvalidData for images that do not fit into memory, as they are stored or as they are resized."""
    count, height = header.shape[:2]
    side = resolution or height
    resized = count * side * side * image_shape(header)[0] if side != height else 0
    check_memory(str(path), f"{name} of the shape {header.shape}", COPIES * (prod(header.shape) + resized + 8 * count))


def _check_names(path: Path, names: Header, labels: Header) -> None:
    """Raise InvalidData for names that are none, or more than there are images."""
    if names.dtype.kind not in "US" or len(names.shape) != 1:
        raise InvalidData(f"{path}: {NAMES} has the shape {_brief(names.shape)} of {names.dtype}; give a list of texts (K,)")
    if names.shape[0] > labels.shape[0] or names.dtype.itemsize > 4 * LONGEST_NAME:
        size = f"{names.shape[0]} names of up to {names.dtype.itemsize} bytes for {labels.shape[0]} training images"
        raise InvalidData(f"{path}: {NAMES} has {size}; name each class once, in at most {LONGEST_NAME} characters")


def _opened(path: Path, use: Callable[[zipfile.ZipFile], T]) -> T:
    """Use the archive. Raises InvalidData for all that its being broken makes it raise."""
    try:
        with zipfile.ZipFile(path) as archive:
            return use(archive)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] if str(error) else type(error).__name__
        raise InvalidData(
            f"cannot read {str(path)!r} as .npz: {reason}; write it with numpy.savez, without Python objects"
        ) from error


def _text(name: object) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)


def _few(names: Collection[str]) -> str:
    shown = sorted(names)[:_NAMED]
    return f"{[name[:40] for name in shown]}" + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _brief(shape: tuple[int, ...]) -> str:
    text = str(tuple(shape))
    return text if len(text) <= 80 else f"{text[:80]}..."
