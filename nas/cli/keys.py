"""Networks of a run by their key, or the beginning of one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from nas.errors import InvalidSetting
from nas.rundir import RunDir

NAMED_AT_MOST = 3


def record_of(run: RunDir, text: str) -> dict[str, Any]:
    """The line of trials.jsonl whose key is `text`, or the only one that begins so. Raises InvalidSetting, CorruptRun."""
    records = {record["key"]: record for record in reversed(run.trials())}
    return records[key_of(str(run.path), records, text)]


def key_of(path: str, keys: Iterable[str], text: str) -> str:
    """The one of the keys of the run `path` that is `text`, or the only one that begins so. Raises InvalidSetting."""
    records = list(keys)
    found = [text] if text in records else [key for key in records if text and key.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidSetting(f"{text!r} is the beginning of {len(found)} keys of {path!r} ({_few(found)}); write more of it")
    if not records:
        raise InvalidSetting(f"{path!r} has no trials, so no network {text!r}; give a run that has looked at some")
    nearest = get_close_matches(text, records, n=NAMED_AT_MOST, cutoff=0.0)
    raise InvalidSetting(f"{path!r} has no trial {text!r} among its {len(records)}; the nearest are {_few(nearest)}")


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:NAMED_AT_MOST]) + (", ..." if len(keys) > NAMED_AT_MOST else "")
