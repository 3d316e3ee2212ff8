"""What a report says, read from a run directory: finished, running and interrupted runs alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nas.architecture import Option
from nas.errors import InvalidSetting
from nas.kinds import KINDS
from nas.latency.table import read_table
from nas.latency.target import Target
from nas.records import Record, checked
from nas.report.fronts import front_of_many
from nas.report.latency import Timed, read_timings
from nas.report.layers import Layers, read_layers
from nas.report.passes import config_of, finished_passes, networks_so_far, read_passes
from nas.report.pruning import Pruning, read_pruning
from nas.report.quantization import Json, Quantization, read_quantization
from nas.report.training import Curve, read_curves
from nas.rundir import RunDir
from nas.trial import shortfall

VAL_ACCURACY = "val_accuracy"
METRICS = ("macs", "params", "size_bytes", "peak_bytes", "latency_ms", "energy_mj", VAL_ACCURACY, "test_accuracy")
SUMMARY, VERIFY, TABLE = "summary.json", "best/verify.json", "latency.csv"
BASELINE = "baseline"  # the run of the plain network within a run


@dataclass(frozen=True)
class Network:
    """One network with the metrics that were taken; a metric that was not taken is absent."""

    key: str
    choices: Mapping[str, Option]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialRow:
    """A line of trials.jsonl: `state` is complete, infeasible or failed."""

    number: int
    state: str
    network: Network


@dataclass(frozen=True)
class BudgetRow:
    """A limit and what the best network has; `value` is None where it is not known, which keeps no budget."""

    text: str
    metric: str
    limit: float
    value: float | None
    ok: bool


@dataclass(frozen=True)
class Contents:
    """All that is reported. Until the run has ended, `summary` and `verify` are empty and `best` is the best so far.

    `timings` are empty for runs that timed nothing; `foreign_table` is the path of a table of another target, if one was used;
    `pruning` and `quantization` are None for runs that did nothing of the kind, `layers` where the run does not tell them.
    `path` is the run directory as it was given, `plain` the run within it that trained the plain network for comparison.
    """

    name: str
    path: str
    config: Mapping[str, Any]
    trials: tuple[TrialRow, ...]
    front: tuple[Network, ...]
    best: Network
    budgets: tuple[BudgetRow, ...]
    summary: Mapping[str, Any] = field(default_factory=dict)
    verify: Mapping[str, Any] = field(default_factory=dict)
    timings: tuple[Timed, ...] = ()
    foreign_table: str = ""
    pruning: Pruning | None = None
    layers: Layers | None = None
    curves: tuple[Curve, ...] = ()
    quantization: Quantization | None = None
    passes: tuple[Json, ...] = ()
    plain: Contents | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has delivered its network."""
        return bool(self.summary)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The costs that accuracy is traded for."""
        return _objectives(self.config)

    @property
    def target(self) -> str:
        """What the latency belongs to, empty for runs that were not told."""
        return str(Target(**self.config["target"])) if "target" in self.config else ""

    @property
    def evaluated(self) -> tuple[TrialRow, ...]:
        """Trials with a validation accuracy, in order."""
        return tuple(t for t in self.trials if t.state == "complete" and VAL_ACCURACY in t.network.metrics)

    @property
    def taken(self) -> Mapping[str, Any]:
        """How the metrics of the best network were taken, as verify.json has it, where that is known."""
        timed = next((t for t in self.timings if t.key == self.best.key), None)
        clock = {"method": "measured", "spread": timed.spread_ms, "context": timed.context} if timed else None
        return {**({"latency_ms": clock} if clock else {}), **self.verify.get("metrics", {})}


def read_contents(run: RunDir, summary: Mapping[str, Any] | None = None) -> Contents:
    """Read what a report needs; `summary` takes the place of a summary.json that is not written yet.

    Raises InvalidSetting if no network of the run was evaluated, CorruptRun as RunDir does.
    """
    summary = run.record_if_there(SUMMARY) if summary is None else _as_read(summary)
    verify, config = run.record_if_there(VERIFY), config_of(run)
    timings, table = read_timings(run), _foreign_table(run, config)
    measured_ms = {t.key: t.measured_ms for t in timings}
    trials = tuple(_trial(line, measured_ms) for line in run.trials())
    if "best" not in summary:
        summary, verify = Record({}, str(run.path)), Record({}, str(run.path))  # best/ may be half written
    if not summary and (done := finished_passes(run)):
        verify = done[-1].record_if_there(VERIFY)
    rows = summary["front"] if "front" in summary else networks_so_far(run)
    front = tuple(map(network, rows)) if rows or summary else front_of(trials, _objectives(config))
    if not summary and not front:
        if config.get("command") == "train":
            raise InvalidSetting(f"{str(run.path)!r} has a supernet, which was not searched; give it to nas search --supernet")
        raise InvalidSetting(
            f"{str(run.path)!r} has nothing to report: none of its {len(trials)} trials was evaluated; let the run go on"
        )
    # each pass goes on with the network of the one before
    best = network(summary["best"]) if summary else front[-1] if rows else _best_so_far(front, config)
    on_front = {n.key: n for n in front}  # whose latency may have been predicted anew
    trials = tuple(replace(t, network=on_front.get(t.network.key, t.network)) for t in trials)
    quantization = read_quantization(summary)
    return Contents(
        name=run.path.resolve().name,
        path=str(run.path),
        config=config,
        trials=trials,
        front=front,
        best=best,
        budgets=_budgets(summary, config, best),
        summary=summary,
        verify=verify,
        timings=timings,
        foreign_table=table,
        pruning=read_pruning(run, summary, best.choices),
        layers=read_layers(run, best.key, quantization.bits if quantization else {}),
        curves=read_curves(run),
        quantization=quantization,
        passes=read_passes(run, summary),
        plain=_plain(run, summary),
    )


def _plain(run: RunDir, summary: Mapping[str, Any]) -> Contents | None:
    """The run of the plain network within a run that has compared it."""
    nested = run.path / BASELINE
    return read_contents(RunDir.read(nested)) if BASELINE in summary and (nested / SUMMARY).is_file() else None


def _as_read(summary: Mapping[str, Any]) -> Record:
    return checked(json.loads(json.dumps(summary)), KINDS[SUMMARY], SUMMARY)


def front_of(trials: Sequence[TrialRow], objectives: Sequence[str]) -> tuple[Network, ...]:
    """Networks that no other one beats in validation error and all `objectives`, cheapest first."""
    networks = [t.network for t in trials if t.state == "complete" and VAL_ACCURACY in t.network.metrics]
    points = [[shortfall(n.metrics), *(n.metrics.get(m, math.nan) for m in objectives)] for n in networks]
    return tuple(networks[i] for i in front_of_many(np.array(points, dtype=float)))


def metric_names(networks: Sequence[Network]) -> list[str]:
    """Metrics that any of the networks has: the usual ones in their usual order, then the others by name.

    Those of a named target, such as `latency_ms@pixel3`, follow those of the run's own.
    """
    rank = {name: i for i, name in enumerate(METRICS)}
    return sorted({name for n in networks for name in n.metrics}, key=lambda m: (rank.get(m.partition("@")[0], len(rank)), m))


def network(row: Mapping[str, Any]) -> Network:
    """Read one network of summary.json."""
    return Network(row["key"], row["architecture"]["choices"], row["metrics"])


def _trial(line: Mapping[str, Any], measured_ms: Mapping[str, float]) -> TrialRow:
    """Read a line of trials.jsonl; a latency that was measured since replaces the predicted one."""
    costs = {name: metric["value"] for name, metric in line["cost"].items()}
    if line["key"] in measured_ms:
        costs["latency_ms"] = measured_ms[line["key"]]
    seen = Network(line["key"], line["architecture"]["choices"], {**costs, **line["scores"]})
    return TrialRow(line["number"], line["state"], seen)


def _objectives(config: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(config.get("objectives") or ("macs",))


def _best_so_far(front: Sequence[Network], config: Mapping[str, Any]) -> Network:
    """The most accurate network that keeps the budgets; by the clock, some may not, though they were predicted to."""
    return max(front, key=lambda n: (all(b.ok for b in _budgets({}, config, n)), -shortfall(n.metrics)))


def _foreign_table(run: RunDir, config: Mapping[str, Any]) -> str:
    """The --table that guided the search, if it was of another target; --accept-foreign-table alone does not tell."""
    options = config.get("options", {})
    guided = any(metric in ("latency_ms", "energy_mj") for metric in _objectives(config))
    if not (guided and "target" in config and options.get("accept_foreign_table") and options.get("table")):
        return ""
    used = run.path / TABLE
    same = used.is_file() and read_table(used).target == Target(**config["target"])
    return "" if same else str(options["table"])


def _budgets(summary: Mapping[str, Any], config: Mapping[str, Any], best: Network) -> tuple[BudgetRow, ...]:
    """The verdicts of the verification, or those of the search as long as there is none."""
    if summary:
        return tuple(BudgetRow(r["text"], r["metric"], r["limit"], r.get("value"), r["ok"]) for r in summary.get("budget", ()))
    rows = []
    for budget in config.get("budgets", ()):
        value = best.metrics.get(budget["metric"])
        ok = value is not None and value <= budget["limit"]
        rows.append(BudgetRow(budget["text"], budget["metric"], budget["limit"], value, ok))
    return tuple(rows)
