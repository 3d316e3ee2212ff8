"""Seconds of a run over all processes that worked in it; of a killed one up to the last file that it wrote."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from nas.files import LOCK
from nas.rundir import RunDir

FILE, SUMMARY = "checkpoint/sessions.jsonl", "summary.json"


def spent(path: Path) -> float:
    """Seconds of the processes before this one, to be asked before anything is written into the run."""
    run = RunDir.read(path)
    sessions = run.read_lines(FILE)
    if not sessions:
        return float(run.record_if_there(SUMMARY).get("seconds", 0.0))
    last = max((file.stat().st_mtime for file in path.rglob("*") if file.name != LOCK and file.is_file()), default=0.0)
    return sessions[-1]["before"] + max(0.0, last - sessions[-1]["began"])


def begin(run: RunDir, before: float) -> None:
    """Note that a process works in the run, after others that took `before` seconds."""
    run.append_line(FILE, {"began": round(time.time(), 3), "before": round(before, 3)})


def total(run: RunDir, seconds: float) -> float:
    """Seconds of all processes, of which this one took `seconds`."""
    sessions = run.read_lines(FILE)
    return round(seconds + (sessions[-1]["before"] if sessions else 0.0), 1)


def end(run: RunDir) -> None:
    """The run has ended; its summary has the seconds."""
    (run.path / FILE).unlink(missing_ok=True)
    with suppress(OSError):  # it has checkpoints of trainings
        (run.path / FILE).parent.rmdir()
