"""Progress on stderr: a bar with rate and time left in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from nas.numbers import rounded

if TYPE_CHECKING:  # rich is imported only where a bar is drawn
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 15.0


class Bar(Protocol):
    """Shows how far a piece of work is."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Say that `done` units are done, of `total` where that is another number now."""


class PlainBar:
    """Prints a line at most every PLAIN_SECONDS, and a last one."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self._start = self._shown = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Print if it is time to; the rate counts from the first unit of this process."""
        self.total = self.total if total is None else total
        now = time.monotonic()
        if self._first is None:
            self._first = max(0, done - 1)
        if now - self._shown < PLAIN_SECONDS and done < self.total:
            return
        self._shown = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = (self.total - done) / rate if rate else 0.0
        log(f"{self.label} {done}/{self.total}, {rounded(rate)}/s, {_time(left)} left{', ' + note if note else ''}")


def _time(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `5 days`."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 3000 else f"{rounded(minutes / 1440)} days"


class RichBar:
    """A bar of rich."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task, self._started = progress, task, False

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Move the bar; rate and time left count from the first unit of this process."""
        if not self._started:
            self._started = True
            self._progress.reset(self._task, completed=max(0, done - 1))
        if total is not None:
            self._progress.update(self._task, total=total)
        rate = self._progress.tasks[0].speed
        self._progress.update(self._task, completed=done, note=note, rate=f"{rounded(rate)}/s" if rate else "")


@contextmanager
def bar(label: str, total: int) -> Iterator[Bar]:
    """Show progress of `total` units of work."""
    if not sys.stderr.isatty():
        yield PlainBar(label, total)
        return
    from rich.console import Console  # only where a bar is drawn
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield RichBar(progress, progress.add_task(label, total=total, note="", rate=""))


def log(text: str) -> None:
    """Print a line for the user on stderr."""
    print(text, file=sys.stderr, flush=True)


class LogLines(logging.Handler):
    """Prints what our modules log as lines for the user."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        log(record.getMessage())
