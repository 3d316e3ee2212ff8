"""Trial, dominance, Pareto front, hypervolume: what a search has seen, as values.

Everything here minimizes; accuracies are turned into errors by the caller.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost, Metric

# how much of the validation error a difference in loss is worth
TIE = 1e-7
State = Literal["complete", "infeasible", "failed"]


@dataclass(frozen=True)
class Trial:
    """One architecture that a search has looked at.

    `scores` are measured by an evaluator (`val_accuracy`, in 0..1) and empty unless the state is complete; an infeasible
    architecture has only its cost. `seconds` is wall-clock time and the one field that differs between equal runs.
    """

    number: int
    architecture: Architecture
    state: State
    cost: Cost
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    def to_json(self) -> dict[str, object]:
        """One line of trials.jsonl."""
        return {
            "number": self.number,
            "key": self.architecture.key,
            "architecture": self.architecture.to_json(),
            "state": self.state,
            "cost": {n: vars(m) for n, m in self.cost.metrics.items()},
            "uncounted": list(self.cost.uncounted),
            "scores": dict(self.scores),
            "seconds": round(self.seconds, 4),
            "error": self.error,
        }

    @staticmethod
    def from_json(data: Mapping, architecture: Architecture) -> Trial:
        """Read `to_json`; the caller has read the architecture with its space."""
        cost = Cost({n: Metric(**m) for n, m in data["cost"].items()}, tuple(data["uncounted"]))
        return Trial(data["number"], architecture, data["state"], cost, data["scores"], data["seconds"], data["error"])

    def same_as(self, other: Trial) -> bool:
        """Equality, times aside."""
        return replace(self, seconds=0.0).to_json() == replace(other, seconds=0.0).to_json()


def shortfall(scores: Mapping[str, float]) -> float:
    """What is minimized of a network's scores: the validation error in 0..1, and of equal ones the validation loss.

    The one order of merit of searchers, fronts and reports. Small validation splits make ties; a loss moves the value by less
    than one image of ten million would.
    """
    loss = max(scores.get("val_loss", 0.0), 0.0)
    return 1 - scores["val_accuracy"] + TIE * loss / (1 + loss)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether point `a` is nowhere worse than `b` and somewhere better."""
    return bool(np.all(a <= b) and np.any(a < b))


def fronts(points: np.ndarray) -> list[np.ndarray]:
    """Non-dominated sorting (Deb et al. 2002): index arrays of the fronts of `points` (n, objectives), best first.

    A value that is NaN is worse than any other one. Each front takes what `_front` takes.
    """
    values = np.asarray(points, dtype=float)
    if len(values) == 0:
        return []
    unique, place = np.unique(np.where(np.isnan(values), np.inf, values), axis=0, return_inverse=True)
    rank = np.zeros(len(unique), dtype=int)
    left = np.arange(len(unique))
    for number in range(len(unique)):
        if len(left) == 0:
            break
        first = _front(unique[left])
        rank[left[first]] = number
        left = left[~first]
    ranks = rank[place.reshape(-1)]
    return [np.flatnonzero(ranks == number) for number in range(int(ranks.max()) + 1)]


def pareto_front(points: Sequence[Sequence[float]] | np.ndarray) -> list[int]:
    """Indices of the non-dominated points, ordered by the last objective; of equal points only the first.

    A point with NaN is not known to be any good and is left out. Takes n log n for up to three objectives, and of more
    n times the size of the front.
    """
    values = np.asarray(points, dtype=float)
    known = np.flatnonzero(~np.isnan(values).any(axis=1)) if len(values) else np.array([], dtype=int)
    if len(known) == 0:
        return []
    unique, first = np.unique(values[known], axis=0, return_index=True)
    order = known[np.sort(first[_front(unique)])]
    return [int(i) for i in order[np.argsort(values[order, -1], kind="stable")]]


def _front(points: np.ndarray) -> np.ndarray:
    """Which of `points` (n, objectives), different ones in lexicographic order, no other one dominates: (n,) of bool."""
    if points.shape[1] <= 2:
        lowest = np.minimum.accumulate(points[:, -1])
        return np.append(True, points[1:, -1] < lowest[:-1]) if points.shape[1] == 2 else np.arange(len(points)) == 0
    return _swept(points) if points.shape[1] == 3 else _compared(points)


def _swept(points: np.ndarray) -> np.ndarray:
    """`_front` of three objectives: a staircase of the last two, to which each point is added unless it lies above it."""
    second, third, found = [-np.inf], [np.inf], np.zeros(len(points), dtype=bool)
    for i, (_, y, z) in enumerate(points.tolist()):
        at = bisect_right(second, y)
        if third[at - 1] <= z and at > 1:
            continue
        found[i] = True
        end = at
        while end < len(third) and third[end] >= z:  # bounded: each step is removed once
            end += 1
        start = at - 1 if at > 1 and second[at - 1] == y else at
        second[start:end], third[start:end] = [y], [z]
    return found


def _compared(points: np.ndarray) -> np.ndarray:
    """`_front` of any number of objectives: each point against those of the front so far, for none after it dominates it."""
    front, size = np.empty_like(points.T), 0
    found = np.zeros(len(points), dtype=bool)
    for i, point in enumerate(points):
        below = front[-1, :size] <= point[-1]
        for known, value in zip(front[1:-1, :size], point[1:-1], strict=True):
            below &= known <= value
        if not below.any():
            found[i] = True
            front[:, size] = point
            size += 1
    return found


def hypervolume(points: np.ndarray, reference: Sequence[float] | np.ndarray) -> float:
    """Volume that `points` (n, objectives) dominate below `reference`, by slicing along the last objective."""
    values, ref = np.asarray(points, dtype=float), np.asarray(reference, dtype=float)
    values = values[np.all(values < ref, axis=1)] if len(values) else values.reshape(0, len(ref))
    if len(values) == 0:
        return 0.0
    if len(ref) == 1:
        return float(ref[0] - values.min())
    if len(ref) == 2:
        x, y = values[pareto_front(values[:, ::-1])].T  # from left to right, and so from high to low
        return float(np.sum((np.append(x[1:], ref[0]) - x) * (ref[1] - y)))
    values = values[np.argsort(values[:, -1], kind="stable")]
    edges = np.append(values[:, -1], ref[-1])
    slabs = ((hypervolume(values[: i + 1, :-1], ref[:-1]), edges[i + 1] - edges[i]) for i in range(len(values)))
    return float(sum(area * height for area, height in slabs if height > 0))
