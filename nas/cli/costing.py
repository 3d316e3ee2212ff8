"""The work of `nas cost`: read the networks, count them, look up their latency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

from nas.budget import Cost, Metric
from nas.cli.cost_text import comparison, sheet
from nas.cli.progress import bar
from nas.cli.sources import Network, read_network, read_shape
from nas.cost.counting import MACS, count, macs, params
from nas.errors import InvalidSetting
from nas.latency.bench import bench_at, calibrated_on_parts, is_calibrated, lacking, with_units
from nas.latency.foreign import FOREIGN, ForeignTable, UnitTable, foreign
from nas.latency.machine import tables_folder
from nas.latency.predictor import Prediction, Predictor
from nas.latency.table import LatencyTable, read_table, write_table
from nas.latency.units import units
from nas.plan import Layer

# what a table tells of a network: metrics, and where they are sums of units, those
Clock = Callable[[Network], tuple[Mapping[str, Metric], Prediction | None]]


@dataclass(frozen=True)
class Question:
    """What the user wants to know."""

    networks: tuple[str, ...]
    table: str | None = None
    shape: str | None = None
    compare: bool = False
    by_layer: bool = True


@dataclass(frozen=True)
class Row:
    """One layer; None is what is not known of it. `ms` is the time of `unit`, which begins at the layer or before it."""

    layer: Layer
    macs: int | None
    params: int | None
    share: float | None
    unit: str | None = None
    begins: bool = False
    ms: float | None = None


@dataclass(frozen=True)
class Sheet:
    """A network with all that is known of its cost."""

    network: Network
    cost: Cost
    prediction: Prediction | None

    @property
    def rows(self) -> Iterator[Row]:
        """The layers in order."""
        total = self.cost.metrics["macs"].value
        units = _units(self.prediction) if self.prediction else {}
        for layer in self.network.plan.layers:
            if layer.op in MACS:
                own = macs(layer)
                yield Row(layer, own, params(layer), own / total if total else 0.0, *units.get(layer.name, ()))
            else:
                yield Row(layer, None, None, None, *units.get(layer.name, ()))


def run_cost(question: Question, as_json: bool) -> None:
    """The whole of `nas cost`. Raises InvalidSetting, MissingPackage, CorruptRun."""
    shape = read_shape(question.shape) if question.shape else None
    clock = clock_of(question.table) if question.table else None
    sheets = [priced(read_network(text, shape), clock) for text in question.networks]
    if as_json:
        print(dumps(_json(question, sheets)))
        return
    if question.compare:
        comparison(sheets)
    if question.by_layer or not question.compare:
        for one in sheets:
            sheet(one, question.by_layer)


def priced(network: Network, clock: Clock | None) -> Sheet:
    """Count a network, and add the time and energy that a table tells."""
    cost = count(network.plan)
    if clock is None:
        return Sheet(network, cost, None)
    metrics, prediction = clock(network)
    return Sheet(network, Cost({**cost.metrics, **metrics}, cost.uncounted), prediction)


def clock_of(text: str) -> Clock:
    """Read a latency table by its file, or by its name among the published ones and those that were measured here.

    Raises InvalidSetting, CorruptTable.
    """
    kept = tables_folder() / f"{text}.csv"
    path = Path(text) if Path(text).exists() else kept
    if path.exists():
        return partial(_by_file, path)
    if text not in FOREIGN:
        known = ", ".join([*FOREIGN, *sorted(p.stem for p in kept.parent.glob("*.csv"))])
        raise InvalidSetting(f"--table {text!r} is neither a file nor one of {known}; measure one with nas profile")
    return partial(_by_published, foreign(text))


def _by_file(path: Path, network: Network) -> tuple[Mapping[str, Metric], Prediction | None]:
    """Predict by a table that was measured, which grows by what it lacks if this is the machine that it is of."""
    table = read_table(path)
    bench, label = bench_at(table.target), network.space.id if network.space else network.name
    if bench and not table.name:
        wanted = units(network.plan)
        with bar(f"measuring {network.name}", len(wanted)) as shown:
            for grown in with_units(bench, table, wanted):
                table = grown
                write_table(table, path)
                shown.update(len(wanted) - len(lacking(table, wanted)), "units")
        if not is_calibrated(table, label):
            table = calibrated_on_parts(bench, table, network.plan, label)
            write_table(table, path)
    return _by_units(table, label, network)


def _by_units(table: LatencyTable, label: str, network: Network) -> tuple[Mapping[str, Metric], Prediction | None]:
    prediction = Predictor(table, label).predict(network.plan)
    return prediction.metrics, prediction


def _by_published(table: ForeignTable, network: Network) -> tuple[Mapping[str, Metric], Prediction | None]:
    """Metrics named after the table: `latency_ms@pixel3`."""
    metrics: Mapping[str, Metric]
    if isinstance(table, UnitTable):
        metrics, prediction = _by_units(table.table, "", network)
    elif network.space is not None and network.architecture is not None:
        metrics, prediction = table.model(network.space)(network.architecture, network.plan), None
    else:
        raise InvalidSetting(f"table {table.name} is of networks of one space ({table.source}), which {network.name} is not")
    return {f"{name}@{table.name}": metric for name, metric in metrics.items()}, prediction


def _units(prediction: Prediction) -> dict[str, tuple[str, bool, float | None]]:
    """Key, whether it begins there, and time of the unit that each layer belongs to."""
    found: dict[str, tuple[str, bool, float | None]] = {}
    for unit, entry in prediction.rows:
        for i, layer in enumerate(unit.plan.layers):
            found[layer.name] = (unit.key, i == 0, entry.latency_ms if entry else None)
    return found


def _json(question: Question, sheets: list[Sheet]) -> dict[str, Any]:
    rows = [_json_sheet(one, question.by_layer) for one in sheets]
    if question.compare:
        first = rows[0]["metrics"]
        for row in rows:
            row["ratios"] = {n: v / first[n] for n, v in row["metrics"].items() if first.get(n)}
    return {"command": "cost", "networks": rows}


def _json_sheet(one: Sheet, by_layer: bool) -> dict[str, Any]:
    plan = one.network.plan
    value: dict[str, Any] = {
        "name": one.network.name,
        "input": [plan.input_channels, *plan.input_size],
        "metrics": one.cost.values(),
        "uncounted": list(one.cost.uncounted),
        "provenance": {n: vars(m) for n, m in one.cost.metrics.items() if m.method != "plan"},
    }
    if one.prediction:
        value["units"] = {n: list(getattr(one.prediction, n)) for n in ("missing", "interpolated")}
    if by_layer:
        value["layers"] = [_json_row(row) for row in one.rows]
    return value


def _json_row(row: Row) -> Mapping[str, Any]:
    layer = row.layer
    value = {
        "name": layer.name,
        "op": layer.op,
        "in": [layer.in_channels, *layer.in_size],
        "out": [layer.out_channels, *layer.out_size],
        **{n: getattr(layer, n) for n in ("kernel", "stride", "groups", "bias", "norm", "act")},
        **{n: getattr(row, n) for n in ("macs", "share", "params")},
    }
    return value if row.unit is None else {**value, "unit": row.unit, "unit_ms": row.ms}
