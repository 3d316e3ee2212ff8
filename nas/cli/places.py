"""Where the files that a run reads are, for commands in another folder: absolute paths beside those that were typed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.data.config import DataConfig
from nas.errors import InvalidData, InvalidSetting

PLACES = "places"
# options that are paths, besides that of the data, which has a kind before it
PATHS = ("data_dir", "weights", "supernet", "table")


def absolute(name: str | None) -> str | None:
    """`npz:x.npz` -> `/here/x.npz`; None for data without a path."""
    path = (name or "").partition(":")[2]
    return str(_full(path)) if path else None


def places(options: Mapping[str, Any]) -> dict[str, str]:
    """What config.json keeps of the files that a run reads: absolute paths, which are of this machine and passed on nowhere."""
    found = {name: str(_full(options[name])) for name in PATHS if options.get(name) and _full(options[name]).exists()}
    data = options.get("data_at") or absolute(options.get("data"))
    return found | ({"data": data} if data else {})


def stored_places(options: Mapping[str, Any], stored: object) -> dict[str, Any]:
    """Options that say where the files of a run are now: what is not here as it was typed is where it was.

    Data are looked for where they were first, for another file of the same name may be here.
    """
    known = {n: p for n, p in stored.items() if isinstance(p, str)} if isinstance(stored, Mapping) else {}
    found: dict[str, Any] = {}
    if "data" in known and Path(known["data"]).exists():
        found["data_at"] = known["data"]
    for name in PATHS:
        if name in known and options.get(name) and not _full(options[name]).exists() and Path(known[name]).exists():
            found[name] = known[name]
    return found


def moved(stored: str, given: str) -> str:
    """Where the user says that the data `stored` of a run are. Raises InvalidSetting for data of another kind."""
    kind, path = stored.partition(":")[0], absolute(given)
    if path is None or given.partition(":")[0] != kind:
        remedy = f"say where they are now, as --data {kind}:PATH" if absolute(stored) else "drop --data"
        raise InvalidSetting(f"--data {given!r}: the run was made with {stored!r}; {remedy}")
    return path


def require_data(options: Mapping[str, Any]) -> None:
    """Raise InvalidData where a run's data are nowhere, and say how to name them: no file alone makes a download."""
    from nas.data.load import DOWNLOADED  # here: it takes torch, which settings and help do without

    name, path = options.get("data") or "", absolute(options.get("data"))
    if path is not None and not options.get("data_at") and not Path(path).exists():
        raise InvalidData(
            f"the data {name!r} of the run are neither here nor where they were; "
            f"say where they are now with --data {name.partition(':')[0]}:PATH"
        )
    folder = Path(options["data_dir"]) if options.get("data_dir") else None
    if name in DOWNLOADED and not DOWNLOADED[name](DataConfig(name, folder)):
        raise InvalidData(
            f"the data {name!r} of the run are not in {str(DataConfig(name, folder).cache)!r}, and nothing is downloaded that "
            f"only a file of a run names; download them with a new run: nas train --data {name}"
        )


def data_config(options: Mapping[str, Any], resolution: int | None, least: int = 2) -> DataConfig:
    """Which data are read, and from where; `options` are those of a command, or of a run with its `stored_places`."""
    folder = Path(options["data_dir"]) if options.get("data_dir") else None
    place = Path(options["data_at"]) if options.get("data_at") else None
    return DataConfig(options["data"], folder, resolution, least=least, place=place)


def _full(path: str) -> Path:
    return Path(path).expanduser().absolute()
