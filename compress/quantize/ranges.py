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
from compress.quantize.passes import Passes
from nas.errors import InvalidSetting

BINS, FINER = 2048, 4
# of so many values at once, about every seventh is counted; the extremes are those of all
MANY, STEPS = 1 << 20, (7, 11, 13, 17, 19, 23)
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


def histograms(network: Network, batches: Iterable[Tensor], passes: Passes | None = None) -> dict[str, Histogram]:
    """Run images (N, C, H, W) through `network` once, and count the values of its points in BINS bins between their extremes.

    Where a later batch goes beyond the extremes of those before it, what was counted moves to the nearest of the new bins; the
    bins are FINER at first, so that this shows little. Raises InvalidSetting for values that are not finite.
    """
    counts = _Counts(network)
    for x in batches:
        counts.run(x)
        if passes:
            passes.made()
    return {name: counts.found(name) for name in network.points}


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


class _Counts(_Watch):
    """Counts the values of each point in bins that widen with its extremes."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.ranges = {name: (0.0, _TINY) for name in network.points}
        self.counts = {name: np.zeros(FINER * BINS) for name in network.points}

    def see(self, name: str, value: Tensor) -> None:
        values = _flat(value)
        least, most = (float(end) for end in values.aminmax())
        if not (isfinite(least) and isfinite(most)):
            raise InvalidSetting(f"{name!r} is not finite on the calibration images; check the weights and the images")
        low, high = self.ranges[name]
        wider = min(low, least), max(high, most)
        if wider != (low, high):
            before = np.linspace(low, high, FINER * BINS + 1)
            self.counts[name] = np.histogram((before[1:] + before[:-1]) / 2, FINER * BINS, wider, weights=self.counts[name])[0]
            self.ranges[name] = wider
        self.counts[name] += torch.histc(values[:: _step(len(values))], FINER * BINS, *wider).double().cpu().numpy()

    def found(self, name: str) -> Histogram:
        """The histogram of a point."""
        return Histogram(self.counts[name].reshape(BINS, FINER).sum(1), np.linspace(*self.ranges[name], BINS + 1))


def _flat(value: Tensor) -> Tensor:
    """All values in one row, in the order of the memory: in another one their extremes take ten times as long."""
    last = value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last)
    return (value.permute(0, 2, 3, 1) if last else value).flatten()


def _step(values: int) -> int:
    """Every how manyth value is counted: a step that divides neither channels nor sides, so that it meets all of them."""
    return 1 if values < MANY else next((step for step in STEPS if values % step), 1)


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
