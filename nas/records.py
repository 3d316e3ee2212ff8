"""The one reader of the records of a run directory, by their kinds (nas/kinds.py).

What is there must have its type, else CorruptRun names file, line and field; what is not there is CorruptRun once it is asked
for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from nas import files
from nas.errors import CorruptRun
from nas.kinds import KINDS

REMEDY = "restore it or start a new run"
DEEPEST = 64  # objects and lists in each other; a chain of passes nests a few


class Record(dict):
    """An object of a file, with where it stands; a field that is not there is CorruptRun, as `get` it is None."""

    __slots__ = ("where",)

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]], where: str = "a record") -> None:
        super().__init__(values)
        self.where = where

    def __missing__(self, name: object) -> NoReturn:
        raise CorruptRun(f"{self.where} has no {name!r}; {REMEDY}")


# -- reading


def read_record(path: Path, kind: Any = None, expected: str = "") -> Record:  # noqa: ANN401 - a type
    """The object of a JSON file, by its name or as `kind`, of which `expected` says what it is.

    Raises OSError if the file cannot be read, CorruptRun.
    """
    try:
        content = files.from_json(files.read_regular(path))
    except ValueError as error:
        raise CorruptRun(f"{str(path)!r} is not JSON ({error}); {REMEDY}") from error
    try:
        return checked(content, kind or KINDS.get(path.name), repr(str(path)))
    except CorruptRun as error:
        if not expected:
            raise
        raise CorruptRun(f"{str(path)!r} is {str(content)[:60]} and not {expected}; {REMEDY}") from error


def read_records(path: Path) -> tuple[list[Record], int]:
    """The records of a log, none if it does not exist, and the size of a torn last line in bytes. Raises CorruptRun."""
    kind = KINDS.get(path.name)
    lines, torn = files.read_log(path)
    return [checked(line, kind, f"{path}, line {number}") for number, line in enumerate(lines, 1)], torn


def checked(content: object, kind: Any, where: str) -> Record:  # noqa: ANN401 - a type
    """`content` as a record of a kind, None for any object. Raises CorruptRun with the field that is wrong."""
    if not isinstance(content, dict):
        raise CorruptRun(f"{where} is {type(content).__name__} and no JSON object; {REMEDY}")
    check_record(content, kind or dict[str, Any], where)
    try:
        return _recorded(content, where)
    except (RecursionError, OverflowError) as error:
        raise CorruptRun(f"{where} is nested too deeply, or has numbers too large; {REMEDY}") from error


def check_record(content: object, kind: Any, where: str) -> None:  # noqa: ANN401 - a type
    """Raise CorruptRun with the field that does not have the type that it has in `kind`."""
    try:
        msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        reason, _, field = str(error).partition(" - at ")
        raise CorruptRun(f"{where} is spoiled: {reason} at {field.strip('`') or 'the top'}; {REMEDY}") from error
    except UnicodeEncodeError as error:
        raise CorruptRun(f"{where} has {error.object[:20]!a}, which is no name; {REMEDY}") from error
    except (RecursionError, OverflowError) as error:
        raise CorruptRun(f"{where} is nested too deeply, or has numbers too large; {REMEDY}") from error


def _recorded(value: Any, where: str, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    if depth > DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        return Record({name: _recorded(item, where, depth + 1) for name, item in value.items()}, where)
    if isinstance(value, list):
        return [_recorded(item, where, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise OverflowError
    return value
