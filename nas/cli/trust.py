"""Whose code may be imported: `python:MODULE:FUNCTION` comes from the user, never from the files of a run alone.

A run directory says which function built its network, and importing it executes its file. So a function is imported where
the user types it on this command line or in a file named there, confirms it with --trust-code, or ran it before from the very
same files: their digests are kept in the user's state folder, as `direnv allow` keeps them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from nas import files
from nas.errors import CorruptRun, UntrustedCode

PREFIX = "python:"
_MOST_REMEMBERED = 1000
_INSTALLED = ("__main__", "nas", "compress", "search_spaces")  # also where they are installed from the working directory
_NAMED: ContextVar[frozenset[str] | None] = ContextVar("named", default=None)
Digests = Mapping[str, str]


@contextmanager
def naming(texts: Iterable[object]) -> Iterator[None]:
    """Within the block the functions among `texts`, such as python:net:make, are those that the user has named.

    A block within another one adds to it.
    """
    names = frozenset(text.removeprefix(PREFIX) for text in texts if isinstance(text, str) and text.startswith(PREFIX))
    token = _NAMED.set((_NAMED.get() or frozenset()) | names)
    try:
        yield
    finally:
        _NAMED.reset(token)


@contextmanager
def called_with(text: str) -> Iterator[None]:
    """Within the block `text` is named by the caller, where there is no command line that would tell."""
    with naming([text]) if _NAMED.get() is None else contextlib.nullcontext():
        yield


def require(name: str) -> None:
    """Raise UntrustedCode for MODULE:FUNCTION that the user has neither named nor run before from the same files."""
    if is_named(name) or _is_remembered(name):
        return
    raise UntrustedCode(
        f"the files of the run name the code {PREFIX}{name}, which would be imported and executed; where you trust it, confirm "
        f"it with --trust-code {name}"
    )


def remember(name: str) -> None:
    """Note the digests of the files that MODULE:FUNCTION, which was just called, is made of; nothing if it was not named.

    Where the state folder cannot be written the user is asked again the next time.
    """
    if not is_named(name):
        return
    digests = _digests(own_modules(name))
    if digests is None:
        return
    known = [entry for entry in _entries() if entry != {name: digests}]
    with contextlib.suppress(OSError):
        state_file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.replace(state_file(), files.to_json([*known, {name: digests}][-_MOST_REMEMBERED:]), durable=False)


def state_file() -> Path:
    """Where the digests are kept: $XDG_STATE_HOME/netcarver/code.json, by default below ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "netcarver/code.json"


def own_modules(name: str) -> list[str]:
    """The module of MODULE:FUNCTION, its packages, and what of the working directory was imported with them."""
    module = name.partition(":")[0]
    parts = module.split(".")
    parents = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    here = f"{os.getcwd()}{os.sep}"
    files_of = {n: str(getattr(m, "__file__", "")) for n, m in list(sys.modules.items())}
    beside = [n for n, path in files_of.items() if path.startswith(here) and "site-packages" not in path]
    return sorted({*parents, *(n for n in beside if n.partition(".")[0] not in _INSTALLED)})


def is_named(name: str) -> bool:
    """Whether the user has named MODULE:FUNCTION on this command line."""
    return name in (_NAMED.get() or ())


# -- parts


def _is_remembered(name: str) -> bool:
    """Whether one of the entries of a function holds for the files that would be imported now."""
    entries = [entry[name] for entry in _entries() if name in entry]
    return any(entry == _digests(list(entry)) for entry in entries)


def _entries() -> list[dict[str, dict[str, str]]]:
    """What was noted; nothing where that cannot be read."""
    try:
        content = files.from_json(files.read_regular(state_file()))
    except (OSError, ValueError, CorruptRun):
        return []
    entries = content if isinstance(content, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and all(isinstance(d, dict) for d in entry.values())]


def _digests(modules: Iterable[str]) -> dict[str, str] | None:
    """SHA-256 of the file of each module; None where one has no file, or another one was imported than would be now."""
    found = {}
    for module in modules:
        path = file_of(module)
        if path is None:
            return None
        found[module] = hashlib.sha256(files.read_regular(path)).hexdigest()
    return found


def file_of(module: str) -> Path | None:
    """The source file that `import module` would execute, found without executing anything; None if it has none."""
    path: list[str] | None = [os.getcwd(), *sys.path]
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:n]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None
