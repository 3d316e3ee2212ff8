"""Trial, dominance, Pareto front, hypervolume: what a search has seen, as values.

Everything here minimizes; accuracies are turned into errors by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost, Metric

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


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether point `a` is nowhere worse than `b` and somewhere better."""
    return bool(np.all(a <= b) and np.any(a < b))


def fronts(points: np.ndarray) -> list[np.ndarray]:
    """Non-dominated sorting (Deb et al. 2002): index arrays of the fronts of `points` (n, objectives), best first."""
    points = np.asarray(points, dtype=float)
    no_worse = np.all(points[:, None] <= points[None], axis=2)
    better = np.any(points[:, None] < points[None], axis=2)
    beats = no_worse & better
    left = np.ones(len(points), dtype=bool)
    result = []
    for _ in range(len(points)):
        if not left.any():
            break
        front = left & ~np.any(beats & left[:, None], axis=0)
        result.append(np.flatnonzero(front))
        left &= ~front
    return result


def pareto_front(points: Sequence[Sequence[float]] | np.ndarray) -> list[int]:
    """Indices of the non-dominated points, ordered by the last objective; of equal points only the first.

    A point with NaN is not known to be any good and is left out.
    """
    values = np.asarray(points, dtype=float)
    known = np.flatnonzero(~np.isnan(values).any(axis=1)) if len(values) else np.array([], dtype=int)
    if len(known) == 0:
        return []
    unique, first = np.unique(values[known], axis=0, return_index=True)
    order = known[first[fronts(unique)[0]]]
    return [int(i) for i in order[np.argsort(values[order, -1], kind="stable")]]


def hypervolume(points: np.ndarray, reference: Sequence[float] | np.ndarray) -> float:
    """Volume that `points` (n, objectives) dominate below `reference`, by slicing along the last objective."""
    values, ref = np.asarray(points, dtype=float), np.asarray(reference, dtype=float)
    values = values[np.all(values < ref, axis=1)] if len(values) else values.reshape(0, len(ref))
    if len(values) == 0:
        return 0.0
    if len(ref) == 1:
        return float(ref[0] - values.min())
    values = values[np.argsort(values[:, -1], kind="stable")]
    edges = np.append(values[:, -1], ref[-1])
    slabs = ((hypervolume(values[: i + 1, :-1], ref[:-1]), edges[i + 1] - edges[i]) for i in range(len(values)))
    return float(sum(area * height for area, height in slabs if height > 0))
