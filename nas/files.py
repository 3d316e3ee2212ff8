"""Files that survive the death of the process: whole files, logs, locks.

A whole file is written aside and renamed, a log grows by one synced line at a time. Whenever the process dies, each file
is as it was or as it was meant to be; only the last line of a log can be torn, and readers drop that one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

from nas.errors import CorruptRun, RunLocked, Unwritable
from nas.failures import about

LOCK = ".lock"
_ASIDE = re.compile(r"\..+\.\d+\.tmp")


# -- JSON


def to_json(value: object) -> bytes:
    """Indented JSON. NaN and infinity are a ValueError: JSON does not have them."""
    return json.dumps(value, allow_nan=False, indent=2).encode() + b"\n"


def utf8(text: str) -> bytes:
    """Text as bytes; of a file name that is no UTF-8, what is not is escaped."""
    return text.encode("utf-8", "backslashreplace")


def from_json(data: bytes) -> object:
    """Read JSON, strictly. Raises ValueError."""
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


# -- whole files


def require_regular(path: Path) -> None:
    """Raise OSError for what is no regular file: a pipe, which would wait for ever, a socket, a device, a folder."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def read_regular(path: Path) -> bytes:
    """The content of a file. Raises OSError; of what is no regular file, such as a pipe, which would wait for ever, too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return file.read()


def replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`, at once or not at all; `durable` waits until it is on the disk."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with about(path):
            write(aside, data, durable=durable)
            os.replace(aside, path)
    except BaseException:
        with suppress(OSError):  # its folder may be gone
            aside.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write(path: Path, data: bytes, *, durable: bool) -> None:
    """Write a file that nobody reads yet; a link in its place is replaced, not followed."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` where it does not exist."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_leftover(path: Path) -> bool:
    """Tell whether `path` is what `replace` wrote aside."""
    return _ASIDE.fullmatch(path.name) is not None


def refuse_links(folder: Path) -> None:
    """Raise CorruptRun for a symbolic link in `folder` that leads out of it: what is written there would change other files."""
    root = folder.resolve()
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            # those of libraries are made, renamed and deleted, and never written through
            if path.is_symlink() and path.suffix != LOCK and not _target(path).is_relative_to(root):
                raise CorruptRun(f"{str(path)!r} is a link that leads out of the run directory; remove that link")


def _target(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError):  # of a link to itself
        return Path(os.sep)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process wrote aside and did not rename."""
    for path in folder.rglob(".*.tmp"):
        if is_leftover(path):
            path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


# -- logs


def append_line(path: Path, record: Mapping[str, object]) -> None:
    """Append one JSON line; it is on the disk when this returns, and not in the file if this raises."""
    line = json.dumps(dict(record), allow_nan=False).encode() + b"\n"
    is_new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        try:
            with about(path):
                _write_all(descriptor, line)
                os.fsync(descriptor)
        except BaseException:  # a full disk or Ctrl-C: half a line would spoil the line after it
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        sync_folder(path.parent)


def read_log(path: Path) -> tuple[list[dict], int]:
    """Records of a log, none if it does not exist, and the size of a torn last line in bytes.

    A line is torn if its end is missing or it is no JSON object. Raises CorruptRun if another than the last is.
    """
    data = read_regular(path) if os.path.lexists(path) else b""
    *lines, rest = data.split(b"\n")
    records: list[dict] = []
    for number, line in enumerate(lines, 1):
        record = _record(line)
        if record is None:
            if number == len(lines) and not rest:  # a loss of power can keep the end of a line and lose its middle
                return records, len(line) + 1
            raise CorruptRun(f"{path}, line {number} is no JSON object: {line[:40]!r}; restore it or delete this line")
        records.append(record)
    return records, len(rest)


def _record(line: bytes) -> dict | None:
    try:
        record = from_json(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


# -- locks


def lock_folder(folder: Path) -> IO[bytes]:
    """Lock `folder` until the result is closed or this process ends, however it ends.

    Raises RunLocked if another process, or this one, has it locked; InvalidSetting if it cannot be written.
    """
    try:
        # no link is followed: what is written into the lock would be written over the file that it leads to
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        lock = os.fdopen(descriptor, "a+b", buffering=0)
    except OSError as error:
        refuse_folder(folder, error)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().decode(errors="replace") or "unknown"
        lock.close()
        message = f"{str(folder)!r} is in use by process {holder}; wait for it, stop it, or choose another --out"
        raise RunLocked(message) from None
    except OSError as error:
        lock.close()
        refuse_folder(folder, error)
    _close_in_children(lock)
    return lock


def refuse_folder(folder: Path, error: OSError) -> NoReturn:
    """Raise Unwritable for a folder that cannot be written."""
    raise Unwritable(f"{str(folder)!r} cannot be written ({error.strerror}); choose another --out") from error


def _close_in_children(lock: IO[bytes]) -> None:
    """Close `lock` in forked children (loader workers): it would hold as long as any of them has it open."""
    reference = weakref.ref(lock)

    def close() -> None:
        inherited = reference()
        if inherited is not None:
            inherited.close()

    os.register_at_fork(after_in_child=close)
