"""RunDir: the one place that writes a run directory.

A process that dies at any moment leaves a run that `RunDir.open` goes on with: files and logs are written by nas/files.py,
and a checkpoint exists once its pointer names it. runs/README.md lists the files of a run.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from nas import files
from nas.errors import CorruptRun, InvalidSetting, MachineFailed
from nas.kinds import Pointer
from nas.records import Record, read_record, read_records

RUNS = Path("runs")
CONFIG = "config.json"
TRIALS = "trials.jsonl"
_ATTEMPTS = 1000


class RunDir:
    """A directory with everything that one run was given and has found.

    `create` and `open` hold a lock until `close` or the end of the process: one process at a time works in a run. `read`
    holds none; it may replace whole files, such as a report, but neither append nor checkpoint.
    """

    def __init__(self, path: Path, lock: IO[bytes] | None) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, command: str, config: Mapping[str, object], out: Path | None = None, base: Path = RUNS) -> Self:
        """Start a run in `out`, or in the next free `base`/<command>-<n>, and write its config.json.

        Raises InvalidSetting if `out` holds files or cannot be written, RunLocked if another process starts one there.
        """
        content = files.to_json(dict(config))
        try:
            path = _next_free(command, base) if out is None else _empty(out)
        except OSError as error:
            files.refuse_folder(base if out is None else out, error)
        run = cls(path, files.lock_folder(path))
        try:
            _empty(path)  # again: another process may have come and gone before the lock was taken
            files.remove_leftovers(path)
            run.write_bytes(CONFIG, content)
            files.sync_folder(path.parent)
        except BaseException:
            run.close()
            raise
        return run

    def create_within(self, name: str, command: str, config: Mapping[str, object]) -> Self:
        """Start a run of another command in folder `name` of this one. Raises MachineFailed if this one was deleted."""
        self._require_there(name)
        return type(self).create(command, config, self.path / name)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run to go on with it; a torn last line of a log is cut off, with a warning.

        Raises InvalidSetting if `path` is no run directory, RunLocked if a process works in it, CorruptRun if config.json
        or a log cannot be read, or a symbolic link leads out of the run.
        """
        _require_run(path)
        run = cls(path, files.lock_folder(path))
        try:
            _ = run.config
            files.refuse_links(path)
            files.remove_leftovers(path)
            for log in sorted(path.rglob("*.jsonl")):
                _cut_torn_line(log)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open a run to look at it, also while it goes on. Raises InvalidSetting and CorruptRun as `open` does."""
        _require_run(path)
        run = cls(path, None)
        _ = run.config
        return run

    def close(self) -> None:
        """Release the lock; more calls do nothing."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- whole files; a name may have folders, such as best/verify.json

    @property
    def config(self) -> Record:
        """What the run was started with, as JSON gives it back (tuples are lists). Raises CorruptRun."""
        return self.record(CONFIG)

    def record(self, name: str) -> Record:
        """Read JSON file `name` as the record of its kind. Raises InvalidSetting if it is not there, CorruptRun."""
        path = self._inside(name)
        try:
            return read_record(path)
        except FileNotFoundError:
            raise InvalidSetting(f"{str(path)!r} does not exist; the run did not get so far, resume it with --resume") from None

    def record_if_there(self, name: str) -> Record:
        """The same, or an empty record where the run has not written it yet."""
        there = (self.path / name).is_file()
        return self.record(name) if there else Record({}, repr(str(self.path / name)))

    def write_json(self, name: str, value: object) -> None:
        """Write `value` as file `name`, at once or not at all. NaN and infinity are a ValueError."""
        self.write_bytes(name, files.to_json(value))

    def write_text(self, name: str, text: str) -> None:
        """Write `text` in UTF-8 as file `name`, at once or not at all."""
        self.write_bytes(name, files.utf8(text))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write `data` as file `name`, at once or not at all."""
        path = self._inside(name)
        self._require_there(name)
        files.make_folder(path.parent)
        files.replace(path, data)

    def read_json(self, name: str) -> object:
        """Read JSON file `name`. Raises InvalidSetting if the run has not written it, CorruptRun if it is no JSON."""
        path = self._inside(name)
        try:
            return files.from_json(files.read_regular(path))
        except FileNotFoundError:
            raise InvalidSetting(f"{str(path)!r} does not exist; the run did not get so far, resume it with --resume") from None
        except ValueError as error:
            raise CorruptRun(f"{str(path)!r} is not JSON ({error}); restore it or start a new run") from error

    # -- logs

    def append_trial(self, record: Mapping[str, object]) -> None:
        """Append one line to trials.jsonl, as `append_line`."""
        self.append_line(TRIALS, record)

    def trials(self) -> list[dict[str, Any]]:
        """The records of trials.jsonl, as `read_lines`."""
        return self.read_lines(TRIALS)

    def append_line(self, name: str, record: Mapping[str, object]) -> None:
        """Append one JSON line to log `name`; it is on the disk when this returns, and not in the log if this raises."""
        self._assert_locked()
        path = self._inside(name)
        self._require_there(name)
        files.make_folder(path.parent)
        files.append_line(path, record)

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The records of log `name` in order, none if it does not exist; a torn last line is ignored, with a warning.

        Raises CorruptRun if a line before the last cannot be read, or is no record of its kind.
        """
        records, torn = read_records(self._inside(name))
        if torn:
            warnings.warn(f"{self.path / name} ends in a torn line of {torn} bytes; it is ignored", stacklevel=2)
        return list(records)

    # -- checkpoints

    def save_checkpoint(self, name: str, payload: bytes, info: Mapping[str, object], *, durable: bool = False) -> None:
        """Replace checkpoint `name` by `payload` (safetensors) and `info` (plain JSON values), at once or not at all.

        The death of the process never loses it; `durable` also waits for the disk, against a loss of power.
        """
        self._assert_locked()
        folder = self._checkpoint(name).parent
        self._require_there(name)
        old = _numbered(folder, name, ".safetensors")
        file = f"{name}-{max(old, default=0) + 1}.safetensors"
        digest = hashlib.sha256(payload).hexdigest()
        pointer = files.to_json({"file": file, "sha256": digest, "bytes": len(payload), "info": dict(info)})
        files.make_folder(folder)
        # in this order the pointer always names a payload that is there
        files.write(folder / file, payload, durable=durable)
        files.replace(self._checkpoint(name), pointer, durable=durable)
        for path in old.values():
            os.unlink(path)

    def remove_checkpoint(self, name: str) -> None:
        """Delete checkpoint `name`, of which nothing is worth keeping."""
        self._assert_locked()
        self._checkpoint(name).unlink(missing_ok=True)
        for path in _numbered(self._checkpoint(name).parent, name, ".safetensors").values():
            path.unlink()

    def load_checkpoint(self, name: str) -> tuple[bytes, dict] | None:
        """Payload and info of checkpoint `name`, None if there is none.

        Raises CorruptRun if the payload is missing or does not have the hash that it was saved with.
        """
        path = self._checkpoint(name)
        if not path.exists():
            return None
        remedy = f"restore it, or delete {str(path)!r} to do that part of the run again"
        pointer = read_record(path, Pointer)
        if not {"file", "sha256", "info"} <= set(pointer):
            raise CorruptRun(f"{str(path)!r} does not name a checkpoint; {remedy}")
        file = path.parent / pointer["file"]
        try:
            payload = files.read_regular(file)
        except FileNotFoundError:
            raise CorruptRun(f"{str(file)!r} is missing; {remedy}") from None
        digest = hashlib.sha256(payload).hexdigest()
        if digest != pointer["sha256"]:
            raise CorruptRun(f"{str(file)!r} has sha256 {digest}, but was saved with {pointer['sha256']}; {remedy}")
        return payload, pointer["info"]

    # -- within

    def _require_there(self, name: str) -> None:
        """Raise MachineFailed for a run that was deleted: nothing is made again half; or for a folder that leads out of it."""
        if name != CONFIG and not (self.path / CONFIG).is_file():
            raise MachineFailed(f"the run directory {str(self.path)!r} disappeared while it was used; start a new run")
        if not self._inside(name).parent.resolve().is_relative_to(self.path.resolve()):
            raise CorruptRun(f"{str(self._inside(name).parent)!r} leads out of the run directory; remove that link")

    def _assert_locked(self) -> None:
        assert self._lock is not None and not self._lock.closed, f"{self.path} is open for reading only, or closed"

    def _inside(self, name: str) -> Path:
        assert not Path(name).is_absolute() and ".." not in Path(name).parts, f"{name!r} is outside the run directory"
        return self.path / name

    def _checkpoint(self, name: str) -> Path:
        assert re.fullmatch(r"[\w-]+", name), f"{name!r} is no plain name"
        return self.path / "checkpoint" / f"{name}.json"


def latest(command: str, base: Path = RUNS) -> Path | None:
    """The directory of the newest run of `command` in `base`, None if there is none."""
    runs = {n: path for n, path in _numbered(base, command, "").items() if (path / CONFIG).is_file()}
    return runs[max(runs)] if runs else None


def _numbered(folder: Path, name: str, suffix: str) -> dict[int, Path]:
    """The entries <name>-<n><suffix> of `folder` by n, none if it does not exist."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+){re.escape(suffix)}")
    entries = folder.iterdir() if folder.is_dir() else ()
    return {int(match[1]): path for path in entries if (match := pattern.fullmatch(path.name))}


def _next_free(command: str, base: Path) -> Path:
    """Make the directory after the last of `command`; mkdir decides between processes that want the same one."""
    base.mkdir(parents=True, exist_ok=True)
    first = max(_numbered(base, command, ""), default=0) + 1
    for n in range(first, first + _ATTEMPTS):
        path = base / f"{command}-{n}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise InvalidSetting(f"{str(base)!r} has no free {command}-<n> up to {n}; choose a directory with --out")


def check_free(out: Path) -> None:
    """Raise InvalidSetting if a run cannot start in `out`: it is a file, or holds more than the traces of a killed start."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InvalidSetting(f"--out {str(out)!r} is a file; choose another --out")
    held = sorted(path.name for path in out.iterdir() if path.name != files.LOCK and not files.is_leftover(path))
    if held:
        raise InvalidSetting(f"--out {str(out)!r} holds files ({held[0]}); choose another --out or add --resume")


def _empty(out: Path) -> Path:
    """Make directory `out` if need be. Raises InvalidSetting as `check_free`."""
    check_free(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _require_run(path: Path) -> None:
    if not (path / CONFIG).is_file():
        raise InvalidSetting(f"{str(path)!r} is no run directory, it has no {CONFIG}; give one such as runs/search-1")


def _cut_torn_line(log: Path) -> None:
    records, torn = files.read_log(log)
    if torn:
        os.truncate(log, log.stat().st_size - torn)
        warnings.warn(f"{log} ended in a torn line of {torn} bytes; it was cut off after line {len(records)}", stacklevel=3)
