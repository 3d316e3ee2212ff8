"""How a command ends: one line for an error of ours, a word on resuming for an interruption, a traceback only for bugs."""

from __future__ import annotations

import functools
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ParamSpec

import typer

from nas.cli.trust import PREFIX, naming
from nas.errors import NasError

P = ParamSpec("P")
INTERRUPTED = 130
TRUST_CODE = "trust_code"


class Interrupted(NasError):
    """The user stopped the work; the message says how to resume."""

    exit_status = INTERRUPTED


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one line on stderr and the exit status of docs/design.md; warnings become a line each."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _terminated_as_interrupted(), warnings.catch_warnings(), naming(_texts(kwargs)):
                warnings.showwarning = _show_warning  # type: ignore[assignment]
                command(*args, **kwargs)
        except NasError as error:
            _say(f"{'interrupted' if isinstance(error, Interrupted) else 'error'}: {error}")
            raise typer.Exit(error.exit_status) from None
        except KeyboardInterrupt:
            _say("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    return run


def _texts(options: Mapping[str, object]) -> Iterator[object]:
    """What was typed; --trust-code has functions without their prefix."""
    for name, value in options.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            yield f"{PREFIX}{text}" if name == TRUST_CODE else text


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """`kill` and the schedulers of clusters end a command as Ctrl-C does, with a word on resuming."""
    if threading.current_thread() is not threading.main_thread():  # signals are of that one
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    # our own warnings are for the user; those of packages are for their developers
    if category is UserWarning:
        _say(f"warning: {message}")


def _say(text: str) -> None:
    print(f"nas: {text}", file=sys.stderr)
