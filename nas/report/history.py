"""What a search has reached after each of its trials: the front, its hypervolume, the best within the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

import numpy as np

from nas.report.contents import VAL_ACCURACY, Contents, TrialRow
from nas.report.fronts import fronts_over_time
from nas.trial import hypervolume, shortfall

# dots of a figure, and points of a line
MOST_SHOWN, STEPS = 1000, 60
# hypervolume takes time beyond all measure with the number of objectives
MOST_OBJECTIVES, FEW_STEPS = 3, 15
Series = tuple[tuple[int, float], ...]
T = TypeVar("T")


@dataclass(frozen=True)
class History:
    """Values by trial number; accuracies and shares are in 0..1.

    `shown` are the validation accuracies of the evaluated networks, thinned out evenly where there are more than MOST_SHOWN of
    them; `best` rises; `feasible` is the share of the trials so far that kept the budgets; `volume` is that of `volumes`.
    """

    shown: Series
    best: Series
    feasible: Series
    volume: Series


def read_history(contents: Contents) -> History:
    """Go through the trials of a run in order."""
    rows = contents.evaluated
    shown = tuple((t.number, t.network.metrics[VAL_ACCURACY]) for t in thinned(rows, MOST_SHOWN))
    best: list[tuple[int, float]] = []
    for trial in rows:
        value = trial.network.metrics[VAL_ACCURACY]
        if keeps(contents, trial) and (not best or value > best[-1][1]):
            best.append((trial.number, value))
    if best:
        best.append((rows[-1].number, best[-1][1]))
    kept = accumulate(keeps(contents, t) for t in contents.trials)
    shares = [(t.number, k / (i + 1)) for i, (t, k) in enumerate(zip(contents.trials, kept, strict=True))]
    feasible = tuple(thinned(shares, 10 * STEPS)) if contents.budgets else ()
    return History(shown, tuple(best), feasible, tuple(volumes(contents)))


def volumes(contents: Contents) -> Iterator[tuple[int, float]]:
    """Hypervolume of the front after some of the trials, as a share of the box that the run spans.

    The box reaches from the best value of each objective that the run has seen to its budget, or to its worst value where it
    has none. Nothing where there is no box, or with more objectives than MOST_OBJECTIVES.
    """
    rows = [t for t in contents.evaluated if keeps(contents, t)]
    names = (VAL_ACCURACY, *contents.objectives)
    points = np.array([_point(t, names) for t in rows], dtype=float).reshape(len(rows), len(names))
    known = np.isfinite(points).all(axis=1)
    points, rows = points[known], [t for t, k in zip(rows, known, strict=True) if k]
    if len(points) < 2 or len(names) > MOST_OBJECTIVES:
        return
    limits = {b.metric: b.limit for b in contents.budgets}
    ideal = points.min(axis=0)
    worst = np.array([limits.get(name, largest) for name, largest in zip(names, points.max(axis=0), strict=True)])
    if not np.all(worst > ideal):
        return
    scaled = (points - ideal) / (worst - ideal)
    for done, front in fronts_over_time(scaled, STEPS if len(names) == 2 else FEW_STEPS):
        yield rows[done - 1].number, hypervolume(scaled[front], np.ones(len(names)))


def keeps(contents: Contents, trial: TrialRow) -> bool:
    """Whether a trial was evaluated and keeps the budgets, by what is known of it now."""
    values = trial.network.metrics
    return trial.state == "complete" and all(values.get(b.metric, math.inf) <= b.limit for b in contents.budgets)


def thinned(values: Sequence[T], most: int) -> list[T]:
    """At most `most` of the values, evenly spaced, the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, most)]


def _point(trial: TrialRow, names: Sequence[str]) -> list[float]:
    metrics = trial.network.metrics
    return [shortfall(metrics), *(metrics.get(name, math.nan) for name in names[1:])]
