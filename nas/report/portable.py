"""What is passed on tells nothing of where things lie on the user's machine: absolute paths become short, relative ones."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# an option, a kind of data, or nothing, before a path of two parts or more
_PATH = re.compile(r"((?:--?[\w-]+=)?(?:[a-z]+:)?)(/[^/\0]+/[^\0]*)")
_MOST_UP = 3  # from best/ to the folder that the run is in, and one more


def near(text: str, folder: Path) -> str:
    """An absolute path as it is seen from `folder` where it lies near it, else its last part; all else as it is."""
    match = _PATH.fullmatch(text)
    if match is None:
        return text
    place = os.path.relpath(match[2], folder.absolute())
    up = place.split(os.sep).count(os.pardir)
    return match[1] + (place if 0 < up <= _MOST_UP else Path(match[2]).name)


def near_values(value: Any, folder: Path) -> Any:  # noqa: ANN401 - JSON
    """A JSON value whose texts are `near`."""
    if isinstance(value, dict):
        return {name: near_values(item, folder) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [near_values(item, folder) for item in value]
    return near(value, folder) if isinstance(value, str) else value


def without_paths(page: str, config: Any, folder: Path) -> str:  # noqa: ANN401 - JSON
    """A page whose absolute paths, as far as `config` has them, are `near` the `folder` that it lies in."""
    for path in sorted(set(_paths(config)), key=len, reverse=True):
        page = page.replace(path, near(path, folder))
    return page.replace(f"{Path.home()}/", "~/") if str(Path.home()) != "/" else page


def _paths(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """The absolute paths in the texts of a value; a command line is taken apart."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _paths(item)
    elif isinstance(value, str):
        for part in (value, *_words(value)):
            if match := _PATH.fullmatch(part):
                yield match[2].rstrip("/")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # no command line
        return []
