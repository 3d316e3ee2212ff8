"""Predicted against measured latency: the networks that a search timed, and how far its predictions were off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nas.rundir import RunDir

LOG = "latency.jsonl"
# two networks are always ranked entirely right or entirely wrong
FEWEST_RANKED = 3


@dataclass(frozen=True)
class Timed:
    """One line of latency.jsonl: a network that was exported and timed, and the prediction that was made before.

    `attempt` counts how often the predictor had been fitted to timings of the run; `spread_ms` is an interquartile range.
    """

    attempt: int
    key: str
    predicted_ms: float | None
    measured_ms: float
    spread_ms: float | None = None
    context: str = ""

    @property
    def error(self) -> float | None:
        """How much too high the prediction was, relative to what was measured; None without a prediction."""
        return None if self.predicted_ms is None else self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class Agreement:
    """How well predictions agree with measurements over `networks` networks.

    `mean_absolute_error` and `bias` are relative: the means of |predicted / measured - 1| and of predicted / measured - 1.
    `kendall` is tau-b (Kendall 1945), `spearman` the correlation of the ranks (Spearman 1904). None is not known: the errors
    of no network, the correlations of fewer than three networks, or where all predictions or all measurements are equal.
    """

    networks: int
    mean_absolute_error: float | None = None
    bias: float | None = None
    kendall: float | None = None
    spearman: float | None = None

    def to_json(self) -> dict[str, float]:
        """Plain data, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_timings(run: RunDir) -> tuple[Timed, ...]:
    """The networks that the run timed, in order, none if it timed none. Raises CorruptRun as `RunDir.read_lines`."""
    return tuple(_timed(line) for line in run.read_lines(LOG))


def agreement(timings: Sequence[Timed]) -> Agreement:
    """Compare the predictions with the measurements; networks without a prediction are left out."""
    errors = [t.error for t in timings if t.error is not None]
    if not errors:
        return Agreement(0)
    kendall, spearman = _rank_correlations(*coordinates(timings)[:2])
    return Agreement(len(errors), sum(map(abs, errors)) / len(errors), sum(errors) / len(errors), kendall, spearman)


def by_attempt(timings: Sequence[Timed]) -> dict[int, list[Timed]]:
    """The networks that have a prediction, by the number of fits before it."""
    groups: dict[int, list[Timed]] = {}
    for timed in timings:
        if timed.predicted_ms is not None:
            groups.setdefault(timed.attempt, []).append(timed)
    return groups


def coordinates(timings: Sequence[Timed]) -> tuple[list[float], list[float], list[float]]:
    """Predicted and measured latency and half the spread (0 where it is not known), in ms; only where there is a prediction."""
    rows = [(t.predicted_ms, t.measured_ms, (t.spread_ms or 0.0) / 2) for t in timings if t.predicted_ms is not None]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def extent(timings: Sequence[Timed]) -> list[float]:
    """Predictions, and both ends of the spread of the measurements, in ms: what a figure of them must show."""
    predicted, measured, bars = coordinates(timings)
    return predicted + [y + sign * bar for y, bar in zip(measured, bars, strict=True) for sign in (-1, 1)]


def _timed(line: Mapping[str, Any]) -> Timed:
    predicted, measured = line["predicted_ms"], line["measured_ms"]
    return Timed(line["attempt"], line["key"], predicted, measured, line["spread_ms"], line["context"])


def _rank_correlations(predicted: list[float], measured: list[float]) -> tuple[float | None, float | None]:
    """Kendall's tau-b and Spearman's rho."""
    if len(predicted) < FEWEST_RANKED or len(set(predicted)) == 1 or len(set(measured)) == 1:
        return None, None
    from scipy.stats import kendalltau, spearmanr  # slow to import, and most runs time nothing

    return float(kendalltau(predicted, measured).statistic), float(spearmanr(predicted, measured).statistic)
