"""The errors that netcarver raises for its users.

Each carries the exit status of the command line (docs/design.md, section 5) and a message that quotes the value,
says what was expected and how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` with the nearest of the known names; nothing where none is near."""
    by_lower = {k.lower(): k for k in known}
    near = get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def not_known(name: str, known: Iterable[str], also: str = "") -> str:
    """`'adam' is not known; choose one of sgd, adamw (did you mean adamw?)`; `also` stands before `one of`."""
    names = list(known)
    return f"{name!r} is not known; choose {also}one of {', '.join(names)}{did_you_mean(name, names)}"


def unknown_key(name: str, known: Iterable[str]) -> str:
    """`has the unknown key 'epoch' (did you mean epochs?); known keys: epochs, lr`."""
    names = sorted(known)
    return f"has the unknown key {name!r}{did_you_mean(name, names)}; known keys: {', '.join(names)}"


class NasError(Exception):
    """Base of all errors of netcarver; `exit_status` is what the command line ends with."""

    exit_status = 2


class InvalidArchitecture(NasError):
    """A choice is missing, unknown, inactive or not among its options."""


class InvalidBudget(NasError):
    """A budget text that does not follow the grammar, or a limit that is not positive."""


class InvalidData(NasError):
    """A data set that cannot be found, read or used for classification."""


class InvalidSetting(NasError):
    """An option, configuration key or device that does not exist or does not fit."""


class MissingPackage(NasError):
    """An optional third-party package is needed and not installed."""


class UntrustedCode(NasError):
    """The files of a run name code that the user has neither named nor run before."""


class CorruptRun(NasError):
    """A file of a run directory does not hold what was written to it."""


class RunLocked(NasError):
    """Another process works in the same run directory."""


class MachineFailed(NasError):
    """The disk, a permission or the memory failed; `resume` is the command that goes on, empty where there is none."""

    exit_status = 5
    resume = ""


class Unwritable(MachineFailed, InvalidSetting):
    """A folder that cannot be written."""


class TrainingDiverged(NasError):
    """The loss or a gradient is not finite; the last good checkpoint is kept."""

    exit_status = 1


class InfeasibleBudget(NasError):
    """No network of the space keeps the budget."""

    exit_status = 3


class VerificationFailed(NasError):
    """The delivered network does not hold what was promised of it."""

    exit_status = 4


class UnsafeFile(VerificationFailed):
    """A file holds what could execute code when it is opened; it was not opened."""
