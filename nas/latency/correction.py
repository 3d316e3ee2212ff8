"""The correction from the sum of separately timed units to the time of a network, fitted on measured networks.

Timed by itself, a unit finds its weights in the cache, and pays once more for entering the runtime and for bringing its input
and output into the runtime's layout. A network pays for the runtime once, and where its weights and activations do not fit
into the cache of a core, it fetches them from further away at every pass. Each of these is one feature of a linear model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.cost.counting import peak_bytes
from nas.latency.table import Calibration
from nas.latency.units import Unit
from nas.plan import Plan

BYTES = 4
RIDGE = tuple(10.0**power for power in range(-6, 0))


@dataclass(frozen=True)
class Parts:
    """A network, its units, the sum of their times in ms, and the cache of a core in bytes (0: not known)."""

    plan: Plan
    units: Sequence[Unit]
    sum_ms: float
    cache: int = 0

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights in fp32."""
        return BYTES * sum(unit.weights for unit in self.units)

    @property
    def uncached_bytes(self) -> int:
        """What weights and activations take beyond the cache."""
        return max(0, self.weight_bytes + peak_bytes(self.plan) - self.cache) if self.cache else 0


FEATURES: dict[str, Callable[[Parts], float]] = {
    "sum_ms": lambda parts: parts.sum_ms,
    "units": lambda parts: len(parts.units),
    "border_values": lambda parts: sum(unit.border for unit in parts.units),
    "weight_bytes": lambda parts: parts.weight_bytes,
    "peak_bytes": lambda parts: peak_bytes(parts.plan),
    "uncached_bytes": lambda parts: parts.uncached_bytes,
}


def features(parts: Parts) -> dict[str, float]:
    """What the correction knows of a network."""
    return {name: float(rule(parts)) for name, rule in FEATURES.items()}


@dataclass(frozen=True)
class Correction:
    """latency = coefficients x features; `error` is the leave-one-out mean absolute relative error over `networks` networks."""

    coefficients: tuple[float, ...]
    networks: int
    error: float

    def __call__(self, given: Mapping[str, float]) -> float:
        """Corrected time in ms, never less than a tenth of the sum."""
        value = float(np.dot(self.coefficients, [given[name] for name in FEATURES]))
        return max(value, 0.1 * given["sum_ms"])


def fit(rows: Sequence[Calibration], weights: Sequence[float] | None = None) -> Correction:
    """Fit relative errors by ridge regression towards the plain sum; the strength is chosen by leaving one out.

    `weights` are the weights of the rows, 1 where None. Needs at least one row.
    """
    times = np.array([row.latency_ms for row in rows])
    scaled = np.array([[row.features[name] for name in FEATURES] for row in rows]) / times[:, None]
    scale = np.maximum(np.abs(scaled).mean(0), 1e-12)
    design, root = scaled / scale, np.sqrt(np.ones(len(rows)) if weights is None else np.asarray(weights))
    plain = np.array([float(name == "sum_ms") for name in FEATURES]) * scale
    target = 1.0 - design @ plain  # what the plain sum misses
    best_error, best = np.inf, np.zeros(len(FEATURES))
    for strength in RIDGE:
        inner = (design * root[:, None] ** 2).T @ design + strength * len(rows) * np.eye(len(FEATURES))
        shift = np.linalg.solve(inner, (design * root[:, None] ** 2).T @ target)
        leverage = np.einsum("ij,ij->i", design @ np.linalg.inv(inner), design) * root**2
        left_out = np.abs((target - design @ shift) / np.maximum(1 - leverage, 1e-6)).mean()
        if left_out < best_error:
            best_error, best = float(left_out), shift
    return Correction(tuple(((plain + best) / scale).tolist()), len(rows), best_error)
