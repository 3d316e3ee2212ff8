"""Simulated death of the process at every file operation of an action."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

OPERATIONS = ("write", "fsync", "replace", "unlink", "truncate", "ftruncate", "mkdir")
MOST_OPERATIONS = 100


class Killed(BaseException):
    """The process died here."""


def kill_at(patch: pytest.MonkeyPatch, calls: int) -> None:
    """Let `calls` file operations pass; the next one, if it is a write, is done half, and nothing after it."""
    left = [calls]

    def mortal(name: str, real: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] >= 0:
                return real(*args, **kwargs)
            if left[0] == -1 and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise Killed

        return call

    for name in OPERATIONS:
        patch.setattr(os, name, mortal(name, getattr(os, name)))


def kill_everywhere(
    monkeypatch: pytest.MonkeyPatch, base: Path, prepare: Callable[[Path], Any], act: Callable[[Any], object]
) -> Iterator[tuple[Any, bool]]:
    """Kill `act(prepare(folder))` at each of its file operations; give what was prepared and whether it was killed.

    The last one lives.
    """
    for calls in range(MOST_OPERATIONS):
        prepared = prepare(base / str(calls))
        killed = False
        with monkeypatch.context() as patch:
            kill_at(patch, calls)
            try:
                act(prepared)
            except Killed:
                killed = True
        yield prepared, killed
        if not killed:
            assert calls >= 2, "the action does nothing that can be interrupted"
            return
    raise AssertionError("the action never ends")
