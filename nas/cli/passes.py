"""The passes of a run of `nas compress`: each one is a run of its own."""

from __future__ import annotations

from pathlib import Path

from nas.errors import InvalidSetting
from nas.rundir import RunDir

COMPRESS, PASSES = "compress", "passes"


def pass_runs(path: Path) -> list[Path]:
    """The folders of the passes that have begun, in order."""
    begun = (file.parent for file in (path / PASSES).glob("*-*/config.json"))
    return sorted(begun, key=lambda folder: int(folder.name.partition("-")[0]))


def last_run(path: Path) -> Path:
    """The run of the last pass that handed over a network, of a run of `nas compress`; any other run is itself."""
    if RunDir.read(path).config.get("command") != COMPRESS:
        return path
    runs = pass_runs(path)
    if not runs:
        raise InvalidSetting(f"{str(path)!r} has finished no pass yet; let it go on: nas compress --resume --out {path}")
    return runs[-1]
