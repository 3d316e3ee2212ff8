"""Class folders: which image files they hold, and which files are left out for what reason. A million files take seconds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.data.decoding import SUFFIXES
from nas.errors import InvalidData

# folders that file systems and their browsers leave among images
FOREIGN = frozenset(("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"))
HIDDEN, IRREGULAR, BROKEN, OUTSIDE = "hidden", "no regular file", "broken link or no permission", "outside of a class folder"
REPEATED = "link to a folder that is listed already"
DEEPEST = 64  # folders in folders
_NAMED = 5


@dataclass(frozen=True)
class Listing:
    """The images below class folders: `paths` in order, `counts` of them by class, and how many files were left out why."""

    class_names: tuple[str, ...]
    paths: list[str]
    counts: tuple[int, ...]
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def labels(self) -> np.ndarray:
        """The class of each path, int64 (N,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def is_hidden(name: str) -> bool:
    """Whether a name is left out: of a hidden file, or of a folder that is no one's class."""
    return name.startswith(".") or name in FOREIGN


def folders_of(folder: Path) -> list[str]:
    """The names of the folders in `folder` that are not hidden, sorted. Raises InvalidData if it cannot be read."""
    return sorted(entry.name for entry in _entries(str(folder)) if not is_hidden(entry.name) and _kind(entry) == "folder")


def list_classes(folder: Path) -> Listing:
    """The images in folder/CLASS/, at any depth. Raises InvalidData for a class without images, or none at all."""
    names = folders_of(folder)
    if not names:
        raise InvalidData(f"{folder}: no class folders found; put the images in {folder}/CLASS/")
    left_out: Counter[str] = Counter()
    for entry in _entries(str(folder)):
        if entry.name not in names:
            left_out[HIDDEN if is_hidden(entry.name) else OUTSIDE] += 1
    paths: list[str] = []
    counts = []
    for name in names:
        before = len(paths)
        found = _Walk(left_out).images(os.path.join(folder, name))
        for _, files in sorted(found):
            paths += files
        counts.append(len(paths) - before)
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty:
        words = f" ({left_out_words(left_out)})" if left_out else ""
        raise InvalidData(f"{folder}: no images in {_few(empty)}{words}; add some or remove the folder")
    return Listing(tuple(map(shown, names)), paths, tuple(counts), left_out)


def left_out_words(left_out: Counter[str]) -> str:
    """`14 files are left out: 12 .txt, 2 hidden`; empty where none is."""
    if not left_out:
        return ""
    parts = [f"{count} {reason}" for reason, count in left_out.most_common(_NAMED)]
    rest = sum(left_out.values()) - sum(count for _, count in left_out.most_common(_NAMED))
    parts += [f"{rest} of other kinds"] if rest else []
    total = sum(left_out.values())
    return f"{total} file{'s are' if total > 1 else ' is'} left out: {', '.join(parts)}"


def shown(name: str) -> str:
    """A file name as text that can be written; bytes that are no UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def reason_for(name: str) -> str:
    """Why a file is left out by its name, empty if it is not."""
    if is_hidden(name):
        return HIDDEN
    suffix = os.path.splitext(name)[1].lower()
    return "" if suffix in SUFFIXES else shown(suffix) or "without suffix"


class _Walk:
    """One class folder: links are followed, but each folder is listed once, so that links in circles end."""

    def __init__(self, left_out: Counter[str]) -> None:
        self.left_out = left_out
        self.seen: set[tuple[int, int]] = set()

    def images(self, folder: str, depth: int = 0) -> Iterator[tuple[str, list[str]]]:
        """Yield folders with the sorted paths of their images."""
        at = os.stat(folder)
        if (at.st_dev, at.st_ino) in self.seen or depth > DEEPEST:
            self.left_out[REPEATED] += 1
            return
        self.seen.add((at.st_dev, at.st_ino))
        files = []
        for entry in sorted(_entries(folder), key=lambda e: e.name):
            if not (kind := _kind(entry)) == "folder":
                reason = reason_for(entry.name) or kind
                if reason:
                    self.left_out[reason] += 1
                else:
                    files.append(entry.path)
            elif is_hidden(entry.name):
                self.left_out[HIDDEN] += 1
            else:
                yield from self.images(entry.path, depth + 1)
        yield folder, files


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise InvalidData(f"cannot list the folder {folder!r} ({error.strerror}); check its permissions") from error


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, empty for a regular file, or why it is neither."""
    try:
        if entry.is_file():
            return ""
        if entry.is_dir():
            return "folder"
        return BROKEN if entry.is_symlink() and not os.path.exists(entry.path) else IRREGULAR
    except OSError:
        return BROKEN


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more
