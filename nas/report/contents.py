"""What a report says, read from a run directory: finished, running and interrupted runs alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.architecture import Option
from nas.errors import InvalidSetting
from nas.rundir import RunDir
from nas.trial import pareto_front

VAL_ACCURACY = "val_accuracy"
METRICS = ("macs", "params", "size_bytes", "peak_bytes", "latency_ms", VAL_ACCURACY, "test_accuracy")
SUMMARY, VERIFY = "summary.json", "best/verify.json"


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
    """All that is reported. Until the run has ended, `summary` and `verify` are empty and `best` is the best so far."""

    name: str
    config: Mapping[str, Any]
    trials: tuple[TrialRow, ...]
    front: tuple[Network, ...]
    best: Network
    budgets: tuple[BudgetRow, ...]
    summary: Mapping[str, Any] = field(default_factory=dict)
    verify: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether the run has delivered its network."""
        return bool(self.summary)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The costs that accuracy is traded for."""
        return _objectives(self.config)

    @property
    def evaluated(self) -> tuple[TrialRow, ...]:
        """Trials with a validation accuracy, in order."""
        return tuple(t for t in self.trials if t.state == "complete" and VAL_ACCURACY in t.network.metrics)


def read_contents(run: RunDir) -> Contents:
    """Read what a report needs. Raises InvalidSetting if no network of the run was evaluated, CorruptRun as RunDir does."""
    summary, verify, config = _read_if_there(run, SUMMARY), _read_if_there(run, VERIFY), run.config
    trials = tuple(_trial(line) for line in run.trials())
    if "best" not in summary:
        summary, verify = {}, {}  # best/ may be half written
    front = tuple(network(row) for row in summary["front"]) if "front" in summary else front_of(trials, _objectives(config))
    if not summary and not front:
        if config.get("command") == "train":
            raise InvalidSetting(f"{str(run.path)!r} has a supernet, which was not searched; give it to nas search --supernet")
        raise InvalidSetting(
            f"{str(run.path)!r} has nothing to report: none of its {len(trials)} trials was evaluated; let the run go on"
        )
    best = network(summary["best"]) if summary else max(front, key=lambda n: n.metrics[VAL_ACCURACY])
    return Contents(run.path.resolve().name, config, trials, front, best, _budgets(summary, config, best), summary, verify)


def front_of(trials: Sequence[TrialRow], objectives: Sequence[str]) -> tuple[Network, ...]:
    """Networks that no other one beats in validation error and all `objectives`, cheapest first."""
    networks = [t.network for t in trials if t.state == "complete" and VAL_ACCURACY in t.network.metrics]
    points = [[1 - n.metrics[VAL_ACCURACY], *(n.metrics.get(m, math.nan) for m in objectives)] for n in networks]
    return tuple(networks[i] for i in pareto_front(points))


def metric_names(networks: Sequence[Network]) -> list[str]:
    """Metrics that any of the networks has: the usual ones in their usual order, then the others by name."""
    present = {name for n in networks for name in n.metrics}
    return [m for m in METRICS if m in present] + sorted(present - set(METRICS))


def _read_if_there(run: RunDir, name: str) -> dict[str, Any]:
    value = run.read_json(name) if (run.path / name).is_file() else {}
    return value if isinstance(value, dict) else {}


def network(row: Mapping[str, Any]) -> Network:
    """Read one network of summary.json."""
    return Network(row["key"], row["architecture"]["choices"], row["metrics"])


def _trial(line: Mapping[str, Any]) -> TrialRow:
    costs = {name: metric["value"] for name, metric in line["cost"].items()}
    seen = Network(line["key"], line["architecture"]["choices"], {**costs, **line["scores"]})
    return TrialRow(line["number"], line["state"], seen)


def _objectives(config: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(config.get("objectives") or ("macs",))


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
