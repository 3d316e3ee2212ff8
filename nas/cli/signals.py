"""Ctrl-C and `kill` end a command in one line, whenever they come and whatever they interrupt."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 0.05  # seconds


class Interrupts:
    """Raises KeyboardInterrupt in the process that it was made in; worker processes leave it to that one to end them."""

    def __init__(self) -> None:
        self.seen = False
        self._process = os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal, and interrupt."""
        if os.getpid() == self._process:
            self.seen = True
            raise KeyboardInterrupt

    def unraisable(self, what: sys.UnraisableHookArgs) -> None:
        """An interruption within a destructor would be lost: it comes again."""
        if self.seen and issubclass(what.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
        elif not self.seen:
            sys.__unraisablehook__(what)


_CURRENT: ContextVar[Interrupts | None] = ContextVar("interrupts", default=None)


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Within the block Ctrl-C and `kill` raise KeyboardInterrupt; the result knows whether one came."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():  # signals are of that one
        yield interrupts
        return
    before = {number: signal.signal(number, interrupts.handle) for number in (*SIGNALS, signal.SIGALRM)}
    hook, sys.unraisablehook = sys.unraisablehook, interrupts.unraisable
    token = _CURRENT.set(interrupts)
    try:
        yield interrupts
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _CURRENT.reset(token)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def was_interrupted() -> bool:
    """Whether the command was told to end: what is raised after that are its consequences."""
    interrupts = _CURRENT.get()
    return interrupts is not None and interrupts.seen


def leave_quietly() -> None:
    """Until a command has begun, and after it, signals end the process in one line."""
    for number in SIGNALS:
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"nas: interrupted\n")
    os._exit(INTERRUPTED)
