"""The work of `nas profile`, and the tables that a search needs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from nas.architecture import SearchSpace
from nas.budget import parse_all
from nas.cli.errors import Interrupted
from nas.cli.progress import bar, log
from nas.cli.space import sizing, space_of, space_options
from nas.errors import InvalidSetting, not_known
from nas.latency.bench import Bench, calibrated, is_calibrated, lacking, units_of, with_units
from nas.latency.foreign import FOREIGN
from nas.latency.machine import table_path, tables_folder
from nas.latency.predictor import Predictor
from nas.latency.table import LatencyTable, read_table, write_table
from nas.rundir import RunDir
from nas.runtimes.runtime import Setting
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

# channels, resolution and classes of well-known data
SHAPES = {
    "digits-shape": DataShape(1, 8, 10),
    "fashion-mnist-shape": DataShape(1, 28, 10),
    "cifar10-shape": DataShape(3, 32, 10),
    "cifar100-shape": DataShape(3, 32, 100),
    "imagenet-shape": DataShape(3, 224, 1000),
}
DEFAULT_RUNTIME = {"cpu": "onnxruntime", "cuda": "torch"}


def run_profile(ctx: typer.Context) -> None:
    """The whole of `nas profile`."""
    given = ctx.params
    bench = bench_for(given["runtime"], Setting(given["device"], given["precision"], given["batch"], given["threads"]))
    space = _space(given, bench)
    path = given["out"] or table_path(bench.target)
    log(f"target: {bench.target}")
    table = completed(bench, start_table(bench, path), space, path)
    correction = Predictor(table, space.id).correction
    assert correction is not None, "a completed table is calibrated"
    log(f"{len(table.entries)} units in {path}; {table.made['load']}")
    log(f"networks of this space are predicted {correction.error:.1%} off on average ({correction.networks}, each left out)")
    busy = sum(bool(entry.note) for entry in table.entries.values())
    if busy:
        log(f"{busy} entries are doubtful, as the column `note` says: measure again on a quiet machine, with another --out")
    if given["json"]:
        print(json.dumps({"command": "profile", "table": str(path), "entries": len(table.entries), "doubtful": busy}))


def run_list(ctx: typer.Context) -> None:
    """The whole of `nas profile --list`."""
    rows = [{"name": name, "target": text, "file": ""} for name, text in _published()]
    for path in sorted(tables_folder().glob("*.csv")):
        table = read_table(path)
        text = f"{table.target}; {len(table.entries)} units, measured {table.made.get('date', 'at an unknown date')}"
        rows.append({"name": table.name or "this machine's", "target": text, "file": str(path)})
    if ctx.params["json"]:
        print(json.dumps({"command": "profile", "tables": rows}))
        return
    for row in rows:
        print(f"{row['name']:<16} {row['target']}" + (f"\n{'':16} {row['file']}" if row["file"] else ""))
    log(f"tables measured here are kept in {tables_folder()}; use a published one as --budget 15ms@{rows[0]['name']}")


def bench_for(name: str | None, setting: Setting) -> Bench:
    """The bench of a runtime, by default that of the device. Raises InvalidSetting, MissingPackage."""
    return Bench(name or DEFAULT_RUNTIME.get(setting.device.partition(":")[0], "torch"), setting)


def start_table(bench: Bench, path: Path) -> LatencyTable:
    """The table of `path` if there is one for this target, else an empty one. Raises InvalidSetting for another target's."""
    if not path.exists():
        return bench.empty_table()
    table = read_table(path)
    table.require(bench.target)
    return table


def completed(bench: Bench, table: LatencyTable, space: SearchSpace, path: Path) -> LatencyTable:
    """Measure what `table` lacks for `space`, and keep it in `path` as it grows."""
    wanted = units_of(space)
    missing = len(lacking(table, wanted))
    try:
        with bar("profiling", len(wanted)) as shown:
            shown.update(len(wanted) - missing)  # the rate counts from here
            for grown in with_units(bench, table, wanted):
                table = grown
                write_table(table, path)
                shown.update(len(wanted) - len(lacking(table, wanted)), "units")
        if missing or not is_calibrated(table, space.id):
            log("timing whole networks, which the correction is fitted on")
            table = calibrated(bench, table, space)
            write_table(table, path)
    except KeyboardInterrupt:
        done = len(wanted) - len(lacking(table, wanted))
        raise Interrupted(f"{done} of {len(wanted)} units are in {path}; start the same command again to go on") from None
    return table


def _space(given: dict[str, Any], bench: Bench) -> SearchSpace:
    if given["supernet"]:
        return space_of(RunDir.read(given["supernet"]).config)
    if given["space"] not in SPACES:
        raise InvalidSetting(f"--space {not_known(given['space'], SPACES)}")
    family, shape = SPACES[given["space"]], _shape(given["data"], given["resolution"])
    options = space_options(family, tuple(given["set"] or ()))
    return sized(family, shape, list(sizing(parse_all(given["budget"] or ()), family, shape, options, bench)), options)


def _shape(name: str, resolution: int | None) -> DataShape:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", name)
    if name not in SHAPES and not match:
        known = ", ".join(SHAPES)
        raise InvalidSetting(f"--data {name!r} is no shape; choose {known}, or channels x resolution x classes, like 3x32x10")
    shape = DataShape(*map(int, match.groups())) if match else SHAPES[name]
    return replace(shape, resolution=resolution) if resolution else shape


def _published() -> list[tuple[str, str]]:
    return [(name, make().source) for name, make in FOREIGN.items()]
