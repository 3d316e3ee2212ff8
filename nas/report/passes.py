"""The passes of a run of `nas compress`: each one is a run of its own, in a folder of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.errors import InvalidSetting
from nas.rundir import RunDir

COMPRESS, PASSES, LOG = "compress", "passes", "passes.jsonl"
Json = Mapping[str, Any]


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


def config_of(run: RunDir) -> Json:
    """The content of config.json, of `nas compress` with data and seed of its first pass and the target of its last one."""
    if run.config.get("command") != COMPRESS or not (runs := pass_runs(run.path)):
        return run.config
    first, last = (RunDir.read(folder).config for folder in (runs[0], runs[-1]))
    told = {
        name: config[name]
        for name, config in (("data", first), ("notes", first), ("seed", first), ("target", last))
        if name in config
    }
    return {**run.config, **told}


def read_passes(run: RunDir, summary: Json) -> tuple[Json, ...]:
    """The passes of `nas compress` in order, as far as they are done; none for other runs."""
    if run.config.get("command") != COMPRESS:
        return ()
    return tuple(summary["passes"] if "passes" in summary else run.read_lines(LOG))


def finished_passes(run: RunDir) -> list[RunDir]:
    """The runs of the passes that have handed over a network, in order; none for runs of other commands."""
    if run.config.get("command") != COMPRESS:
        return []
    names = {f"{row['number']}-{row['name']}" for row in run.read_lines(LOG)}
    return [RunDir.read(folder) for folder in pass_runs(run.path) if folder.name in names]


def networks_so_far(run: RunDir) -> list[Json]:
    """The original and what the passes have handed over, as rows of a summary, by the metrics that passes.jsonl has."""
    metrics, done = {f"{row['number']}-{row['name']}": row["metrics"] for row in run.read_lines(LOG)}, finished_passes(run)
    if not done:
        return []
    first = done[0].trials()[0]
    original = {"key": first["key"], "architecture": first["architecture"], "metrics": metrics["0-original"]}
    rows = [original, *({**_summary(one)["best"], "metrics": metrics[one.path.name]} for one in done)]
    # a fine-tune hands over the architecture of the prune before it: one row, as it was last
    return list({row["key"]: row for row in rows}.values())


def _summary(run: RunDir) -> Json:
    return run.record("summary.json")
