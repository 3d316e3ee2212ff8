"""Do the times of a table's units add up to networks? By how much, against operators, layers and a line in FLOPs.

    python -m benchmarks.latency_tables mobilenet 32 1     one space, resolution and number of threads
    python -m benchmarks.latency_tables torchvision        resnet18, resnet50 and mobilenet_v2 at 224 pixels, traced

Table and networks are measured in the same run, in onnxruntime on the processor in fp32. Corrections are fitted on 32 networks
of the space, errors are of 30 others. Every way to cut networks gets the same correction.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torchvision
from scipy.stats import kendalltau, spearmanr

from nas.architecture import SearchSpace
from nas.budget import Budget
from nas.cost.counting import count
from nas.cost.measure import load
from nas.cost.trace import trace
from nas.latency.bench import CALIBRATION_NETWORKS, Bench, calibrated_on_parts, with_units
from nas.latency.correction import Parts, features, fit
from nas.latency.machine import cache_bytes
from nas.latency.predictor import Predictor
from nas.latency.table import Calibration, LatencyTable
from nas.latency.units import Unit, segments, single_layers, units
from nas.plan import Plan
from nas.runtimes.runtime import Setting
from nas.seeding import numpy_rng
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

NETWORKS = 30
BUDGETS = {
    ("mobilenet", 32): "20MFLOPs",
    ("mobilenet", 96): "100MFLOPs",
    ("resnet", 32): "40MFLOPs",
    ("resnet", 96): "200MFLOPs",
}
CUTS: dict[str, Callable[[Plan], tuple[Unit, ...]]] = {"operators": single_layers, "layers": segments, "units": units}
TORCHVISION = ("resnet18", "resnet50", "mobilenet_v2")


def space_of(name: str, resolution: int) -> SearchSpace:
    """The space of a budget, at one resolution."""
    family = SPACES[name]
    budget = [Budget.parse(BUDGETS[name, resolution])]
    return sized(family, DataShape(3, resolution, 10), budget, family.options(resolutions=(resolution,)))


def table_of(bench: Bench, wanted: Sequence[Unit]) -> LatencyTable:
    """Measure units."""
    *_, table = with_units(bench, bench.empty_table(), wanted)
    return table


def errors(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """Mean absolute relative error, bias and rank correlations."""
    relative = predicted / measured - 1
    ranks = {"spearman": spearmanr(predicted, measured).statistic, "kendall": kendalltau(predicted, measured).statistic}
    return {"error": float(np.abs(relative).mean()), "bias": float(relative.mean()), **{k: float(v) for k, v in ranks.items()}}


def compare(name: str, resolution: int, threads: int) -> dict[str, object]:
    """All ways to predict, on one space."""
    space, bench = space_of(name, resolution), Bench("onnxruntime", Setting(threads=threads))
    rng = numpy_rng(1, "benchmark", space.id)
    plans = [space.plan(space.sample(rng)) for _ in range(CALIBRATION_NETWORKS + NETWORKS)]
    tables = {}
    for cut, rule in CUTS.items():
        tables[cut] = table_of(bench, list({unit.key: unit for plan in plans for unit in rule(plan)}.values()))
        print(f"{cut}: {len(tables[cut].entries)} entries, {tables[cut].made['load']}", file=sys.stderr, flush=True)
    times = bench.time_plans({str(i): plan for i, plan in enumerate(plans)})
    ms = np.array([times[str(i)].ms for i in range(len(plans))])
    spread = float(np.median([times[str(i)].spread_ms / ms[i] for i in range(len(plans))]))
    fitted, held = slice(CALIBRATION_NETWORKS), slice(CALIBRATION_NETWORKS, None)
    flops = np.array([count(plan).value("macs") for plan in plans], dtype=float)
    line = np.polyfit(flops[fitted], ms[fitted], 1, w=1 / ms[fitted])
    rows = {"line in FLOPs": errors(np.polyval(line, flops)[held], ms[held])}
    for cut, rule in CUTS.items():
        given = [features_of(plan, rule, tables[cut]) for plan in plans]
        sums = np.array([row["sum_ms"] for row in given])
        correction = fit([Calibration(row, float(t)) for row, t in zip(given[fitted], ms[fitted], strict=True)])
        rows[f"{cut}, plain sum"] = errors(sums[held], ms[held])
        rows[f"{cut}, corrected"] = errors(np.array([correction(row) for row in given])[held], ms[held])
    about = {"space": name, "resolution": resolution, "threads": threads, "target": str(bench.target), "load": load()}
    about |= {"ms": [float(ms.min()), float(ms.max())], "spread": spread}
    about |= {"doubtful": sum(bool(t.note) for t in times.values())}
    return {**about, "rows": rows}


def features_of(plan: Plan, rule: Callable[[Plan], tuple[Unit, ...]], table: LatencyTable) -> dict[str, float]:
    """Features of a plan, cut by `rule`."""
    parts = rule(plan)
    return features(Parts(plan, parts, sum(table.entries[unit.key].latency_ms for unit in parts), cache_bytes("cpu")))


def torchvision_networks(threads: int = 1) -> dict[str, object]:
    """Traced networks; the correction is fitted on parts of the same network."""
    bench, rows = Bench("onnxruntime", Setting(threads=threads)), {}
    plans = {n: trace(getattr(torchvision.models, n)(weights=None), torch.zeros(1, 3, 224, 224)) for n in TORCHVISION}
    table = table_of(bench, list({unit.key: unit for plan in plans.values() for unit in units(plan)}.values()))
    for name, plan in plans.items():
        table = calibrated_on_parts(bench, table, plan, name)
    times = bench.time_plans(plans)
    for name, plan in plans.items():
        ms, predictor = times[name].ms, Predictor(table, name)
        metric = predictor.predict(plan).latency
        assert metric is not None, "all units were measured"
        row = {"measured_ms": ms, "plain_sum_error": predictor.features(plan)["sum_ms"] / ms - 1}
        rows[name] = {**row, "corrected_error": metric.value / ms - 1}
    about = {"space": "torchvision", "resolution": 224, "threads": threads, "target": str(bench.target), "load": load()}
    return {**about, "rows": rows}


def main(args: Sequence[str]) -> None:
    """Run one comparison and print it."""
    name, *numbers = args
    found = (
        torchvision_networks(int(numbers[0]) if numbers else 1) if name == "torchvision" else compare(name, *map(int, numbers))
    )
    print(f"{found['space']} at {found['resolution']} pixels, {found['threads']} threads; {found['target']}; {found['load']}")
    rows: dict[str, dict[str, float]] = found["rows"]  # type: ignore[assignment]
    for label, row in rows.items():
        cells = (
            f"{key} {value:.1%}" if key.endswith(("error", "bias")) else f"{key} {value:.4g}" for key, value in row.items()
        )
        print(f"  {label:<22} {', '.join(cells)}")
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
