"""Calibration: which range of an activation the integers are spread over. Adding a method is adding a line in CALIBRATIONS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from torch import Tensor, fx

from compress.quantize.graph import Network, Node
from nas.errors import InvalidSetting

BINS = 2048
PERCENTILE = 99.99
CANDIDATES = 64
_TINY = 1e-12


@dataclass(frozen=True)
class Histogram:
    """How often values fall between `edges` (bins + 1 of them), over all calibration images."""

    counts: np.ndarray
    edges: np.ndarray

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin."""
        return (self.edges[1:] + self.edges[:-1]) / 2


Calibrate = Callable[[Histogram, int], tuple[float, float]]


def min_max(seen: Histogram, levels: int) -> tuple[float, float]:
    """All that was seen."""
    return float(seen.edges[0]), float(seen.edges[-1])


def percentile(seen: Histogram, levels: int) -> tuple[float, float]:
    """All but the outermost hundredth of a percent at each end."""
    share = np.cumsum(seen.counts) / max(seen.counts.sum(), 1)
    low = int(np.searchsorted(share, 1 - PERCENTILE / 100, side="right"))
    high = int(np.searchsorted(share, PERCENTILE / 100))
    return float(seen.edges[low]), float(seen.edges[min(high + 1, len(seen.edges) - 1)])


def mse(seen: Histogram, levels: int) -> tuple[float, float]:
    """The range whose rounding and clipping have the least squared error together."""
    return _best(seen, lambda low, high: _squared_error(seen, low, high, levels))


def entropy(seen: Histogram, levels: int) -> tuple[float, float]:
    """The range whose rounded values lose the least information: Kullback-Leibler divergence (Migacz 2017)."""
    return _best(seen, lambda low, high: _divergence(seen, low, high, levels))


CALIBRATIONS: Mapping[str, Calibrate] = {"min-max": min_max, "percentile": percentile, "mse": mse, "entropy": entropy}


def histograms(network: Network, batches: Iterable[Tensor]) -> dict[str, Histogram]:
    """Run images (N, C, H, W) through `network`, twice: for the extremes, and for the counts between them.

    Raises InvalidSetting for values that are not finite.
    """
    images = list(batches)
    extremes = _Extremes(network)
    for x in images:
        extremes.run(x)
    counted = _Counts(network, extremes.ranges)
    for x in images:
        counted.run(x)
    edges = {name: np.linspace(low, high, BINS + 1) for name, (low, high) in extremes.ranges.items()}
    return {name: Histogram(counted.counts[name].numpy(), edges[name]) for name in edges}


class _Watch(fx.Interpreter, ABC):
    """Runs a network and shows the values of its points to `see`."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module)
        self.points = set(network.points)

    @torch.no_grad()
    def run_node(self, n: Node) -> object:
        """Run one node."""
        value = super().run_node(n)
        if n.name in self.points:
            self.see(n.name, value.detach().float())
        return value

    @abstractmethod
    def see(self, name: str, value: Tensor) -> None:
        """Take note of a point's values."""


class _Extremes(_Watch):
    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.ranges: dict[str, tuple[float, float]] = {}

    def see(self, name: str, value: Tensor) -> None:
        least, most = float(value.min()), float(value.max())
        if not (isfinite(least) and isfinite(most)):
            raise InvalidSetting(f"{name!r} is not finite on the calibration images; check the weights and the images")
        low, high = self.ranges.get(name, (0.0, _TINY))
        self.ranges[name] = min(low, least), max(high, most)


class _Counts(_Watch):
    def __init__(self, network: Network, ranges: Mapping[str, tuple[float, float]]) -> None:
        super().__init__(network)
        self.ranges = ranges
        self.counts = {name: torch.zeros(BINS, dtype=torch.float64) for name in ranges}

    def see(self, name: str, value: Tensor) -> None:
        low, high = self.ranges[name]
        self.counts[name] += torch.histc(value, BINS, low, high).cpu()


def _best(seen: Histogram, loss: Callable[[float, float], float]) -> tuple[float, float]:
    """Of ranges that shrink from all that was seen to a tenth of it, both ends alike, the one of least loss."""
    low, high = float(seen.edges[0]), float(seen.edges[-1])
    shares = np.linspace(1.0, 0.1, CANDIDATES)
    best = min(shares, key=lambda share: loss(low * share, high * share))
    return low * float(best), high * float(best)


def _squared_error(seen: Histogram, low: float, high: float, levels: int) -> float:
    step = max((high - low) / (levels - 1), _TINY)
    inside = np.clip(seen.centers, low, high)
    rounded = low + np.round((inside - low) / step) * step
    return float(seen.counts @ (rounded - seen.centers) ** 2)


def _divergence(seen: Histogram, low: float, high: float, levels: int) -> float:
    """Of the histogram, clipped to the range, from what is left when each level spreads over the bins that it stands for."""
    inside = (seen.centers >= low) & (seen.centers <= high)
    places = np.flatnonzero(inside)
    if len(places) < 2:
        return np.inf
    reference = seen.counts[inside].astype(float)
    reference[0] += seen.counts[: places[0]].sum()
    reference[-1] += seen.counts[places[-1] + 1 :].sum()
    plain = seen.counts[inside].astype(float)
    level = np.minimum((np.arange(len(plain)) * levels) // len(plain), levels - 1)
    filled = plain > 0
    mass = np.bincount(level, plain, levels)
    width = np.bincount(level, filled, levels)
    spread = np.where(filled, (mass / np.maximum(width, 1))[level], 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), _TINY)
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / np.maximum(q[held], _TINY))))
