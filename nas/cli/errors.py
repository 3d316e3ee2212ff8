"""How a command ends: one line for an error of ours, a word on resuming for an interruption, a traceback only for bugs."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import ParamSpec

import typer

from nas.cli.limits import check_options
from nas.cli.signals import INTERRUPTED, interruptible
from nas.cli.trust import PREFIX, naming
from nas.errors import MachineFailed, NasError
from nas.failures import machine_failure, require_memory

P = ParamSpec("P")
UNREAD = 141  # as a shell tells of SIGPIPE
# commands that import torch before they can say anything
SLOW_TO_START = frozenset("search train prune quantize compress profile".split())
WITHOUT_TORCH = frozenset("report watch diff dashboard".split())
TRUST_CODE = "trust_code"


class Interrupted(NasError):
    """The user stopped the work; the message says how to resume."""

    exit_status = INTERRUPTED


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one line on stderr and the exit status of docs/design.md; warnings become a line each."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with interruptible() as interrupts:
            try:
                with warnings.catch_warnings(), naming(_texts(kwargs)):
                    warnings.showwarning = _show_warning  # type: ignore[assignment]
                    if command.__name__ not in WITHOUT_TORCH:
                        require_memory()
                    check_options(kwargs)
                    if command.__name__ in SLOW_TO_START:
                        _say(f"{command.__name__}: starting")
                    command(*args, **kwargs)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) or (interrupts.seen and not isinstance(error, Interrupted)):
                    error = Interrupted("")
                raise typer.Exit(_told(error)) from None

    return run


def _told(error: BaseException) -> int:
    """Say what happened in one line, and give the exit status; what is a fault of ours is raised as it is."""
    if isinstance(error, BrokenPipeError):  # whoever read the output has gone, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left in the old one cannot be written either
        return UNREAD
    failure = error if isinstance(error, NasError) else machine_failure(error) if isinstance(error, Exception) else None
    if failure is None:
        raise error
    if isinstance(failure, Interrupted):
        _say(f"interrupted: {failure}" if str(failure) else "interrupted")
    else:
        resume = f"; resume with: {failure.resume}" if isinstance(failure, MachineFailed) and failure.resume else ""
        _say(f"error: {failure}{resume}")
    return failure.exit_status


def _texts(options: Mapping[str, object]) -> Iterator[object]:
    """What was typed; --trust-code has functions without their prefix."""
    for name, value in options.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            yield f"{PREFIX}{text}" if name == TRUST_CODE else text


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    # our own warnings are for the user; those of packages are for their developers
    if category is UserWarning:
        _say(f"warning: {message}")


def _say(text: str) -> None:
    print(f"nas: {text}", file=sys.stderr)
