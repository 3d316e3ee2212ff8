"""The layers of a network and of the one that it is compared with, for the report, which knows no spaces and no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from compress.prune.saved import SOURCE, read_source
from nas.cli.progress import log
from nas.cli.sources import build, rebuilt, shape_of
from nas.cli.space import space_of
from nas.cost.counting import MACS, macs, params
from nas.cost.trace import trace
from nas.errors import NasError, UntrustedCode
from nas.latency.predictor import Predictor
from nas.latency.table import read_table
from nas.plan import Layer, Plan
from nas.report.contents import TABLE, Network
from nas.report.layers import FILE
from nas.report.passes import COMPRESS, last_run, pass_runs
from nas.rundir import RunDir

Json = dict[str, Any]


def write_layers(run: RunDir, network: Network) -> bool:
    """Write layers.json for `network` of the run; nothing, and False, for a run whose networks cannot be built here."""
    command = run.config.get("command")
    if command not in LAYERS or not (command == COMPRESS or run.config.get("space", {}).get("settings")):
        return False
    try:
        found = LAYERS[command](run, network)
    except UntrustedCode as error:
        log(f"warning: the layers are left out of the report: {error}")
        return False
    except NasError:  # such as an own function that is no longer there: the report does without
        return False
    run.write_json(FILE, {"key": network.key, **found})
    return True


def _of_search(run: RunDir, network: Network) -> Json:
    """Compared with the largest network of the space, and timed by the table that guided the search."""
    # a plain network is of another space than the searched ones
    found = run.record_if_there("best/architecture.json")
    space = space_of({"space": found["definition"]} if found.get("key") == network.key else run.config)
    plan = space.plan(space.architecture(dict(network.choices)))
    times = _times(run, plan, space.id) if (run.path / TABLE).is_file() else {}
    return _described("largest of the space", plan, space.plan(space.largest()), times)


def _of_prune(run: RunDir, network: Network) -> Json:
    """Compared with the original."""
    kept = run.path / "networks" / network.key
    folder = kept if (kept / SOURCE).is_file() else run.path / "best"
    source = read_source(folder)
    example = torch.zeros(1, *shape_of(source))
    return _described("original", trace(rebuilt(folder).eval(), example), trace(build(source).eval(), example), {})


def _of_quantize(run: RunDir, network: Network) -> Json:
    """The layers are those of the original; the report knows the bits."""
    source = run.config["space"]["settings"]
    plan = trace(build(source).eval(), torch.zeros(1, *shape_of(source)))
    return _described("original", plan, plan, {})


def _of_compress(run: RunDir, network: Network) -> Json:
    """The network of the last pass, compared with the original of the first one."""
    last, first = RunDir.read(last_run(run.path)), RunDir.read(pass_runs(run.path)[0])
    source = first.config["space"]["settings"]
    original = trace(build(source).eval(), torch.zeros(1, *shape_of(source)))
    found = LAYERS[last.config["command"]](last, network)
    return {**found, "networks": {**found["networks"], "reference": [_row(layer, None) for layer in original.layers]}}


LAYERS: dict[str, Callable[[RunDir, Network], Json]] = {
    "search": _of_search,
    "baseline": _of_search,
    "prune": _of_prune,
    "quantize": _of_quantize,
    COMPRESS: _of_compress,
}


def _times(run: RunDir, plan: Plan, space: str) -> Mapping[str, float]:
    """Predicted time of each unit of the plan, in ms, by its first layer."""
    rows = Predictor(read_table(run.path / TABLE), space).predict(plan).rows
    return {unit.plan.layers[0].name: entry.latency_ms for unit, entry in rows if entry is not None}


def _described(reference: str, chosen: Plan, other: Plan, times: Mapping[str, float]) -> Json:
    networks = {
        "chosen": [_row(layer, times.get(layer.name)) for layer in chosen.layers],
        "reference": [_row(layer, None) for layer in other.layers],
    }
    return {"image": [chosen.input_channels, *chosen.input_size], "reference": reference, "networks": networks}


def _row(layer: Layer, ms: float | None) -> Json:
    known = layer.op in MACS
    row = {
        "name": layer.name,
        "op": layer.op,
        "in": [layer.in_channels, *layer.in_size],
        "out": [layer.out_channels, *layer.out_size],
        "kernel": list(layer.kernel),
        "stride": list(layer.stride),
        "groups": layer.groups,
        "act": layer.act,
        "weight_bits": layer.weight_bits,
        "macs": macs(layer) if known else None,
        "params": params(layer) if known else None,
    }
    return row if ms is None else {**row, "ms": ms}
