"""Data sets in one .npz file, as `numpy.savez` writes it."""

from __future__ import annotations

import zipfile
import zlib
from functools import partial
from pathlib import Path

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
from nas.errors import InvalidData

REQUIRED = ("train_images", "train_labels", "test_images", "test_labels")
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def load_npz(config: DataConfig) -> Dataset:
    """The data set `npz:FILE`, with the arrays REQUIRED and, if it likes, class_names. Raises InvalidData.

    Of the test arrays only types, shapes and the range of the labels are looked at, so that what does not fit is told before
    a long run, not after it.
    """
    path = config.location
    headers = _headers(path)
    missing = [name for name in REQUIRED if name not in headers]
    if missing:
        raise InvalidData(f"{path}: {', '.join(missing)} not found among the arrays {sorted(headers)}; add what is missing")
    for part in ("train", "test"):
        check_headers(str(path), part, headers[f"{part}_images"], headers[f"{part}_labels"])
    check_same_kind(str(path), image_shape(headers["train_images"]), image_shape(headers["test_images"]))
    data = build(ArraySource(str(path), partial(_read, path), flip=None), config)
    check_test_labels(str(path), _array(path, "test_labels"), data.classes)
    return data


def _headers(path: Path) -> dict[str, Header]:
    if not path.is_file():
        raise InvalidData(f"no file {str(path)!r}; give the path of a file that numpy.savez wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _header(archive, name) for name in archive.namelist()}
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        # the later versions of the format differ in the width and the encoding of the header alone
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        return Header(shape, dtype)


def _read(path: Path, part: Part) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays["class_names"] if "class_names" in arrays else ()
            return Arrays(arrays[f"{part}_images"], arrays[f"{part}_labels"], tuple(map(str, names)))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidData:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InvalidData(f"cannot read {str(path)!r} as .npz: {reason}; write it with numpy.savez, without Python objects")
