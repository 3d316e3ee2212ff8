"""Latency, measured: warm-up until steady, interleaved rounds, median and spread, and a watch on the machine itself.

All candidates are timed in turn in every round, so that a change of the machine's speed meets all alike. Between the rounds a
small reference kernel is timed: a round beside a slow one is not trusted and is repeated.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from nas.budget import Metric
from nas.errors import InvalidSetting

MS = 1_000_000  # nanoseconds
Kernel = Callable[[], object]


@dataclass(frozen=True)
class MeasureSettings:
    """How to measure.

    A sample is as many calls as last `sample_ms`, at most `most_calls`. Warm-up ends when `steady_samples` samples in a row
    differ by at most `steady_within` of the fastest, at the latest after `most_warmups`. A round is busy if the reference
    kernel beside it takes more than 1 + `busy_above` times its fastest; at most `extra_rounds` are added to make up for busy
    ones. `synchronize` waits for a device that works in the background.
    """

    rounds: int = 20
    extra_rounds: int = 10
    sample_ms: float = 1.0
    most_calls: int = 10_000
    steady_samples: int = 5
    steady_within: float = 0.1
    most_warmups: int = 50
    busy_above: float = 0.25
    synchronize: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        """Check the values. Raises InvalidSetting."""
        for name in ("rounds", "most_calls", "steady_samples", "most_warmups"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"{name}={getattr(self, name)} is too small to measure; expected 1 or more")
        for name in ("extra_rounds", "sample_ms", "steady_within", "busy_above"):
            if not getattr(self, name) >= 0:
                raise InvalidSetting(f"{name}={getattr(self, name)} is negative; expected 0 or more")


def reference_kernel() -> Kernel:
    """A matrix product of about a millisecond, whose time tells what else the machine does."""
    matrix = np.full((256, 256), 0.5, dtype=np.float32)
    return lambda: [matrix @ matrix for _ in range(4)]


def measure(
    candidates: Mapping[str, Kernel],
    settings: MeasureSettings,
    clock: Callable[[], int] = time.perf_counter_ns,
    reference: Kernel | None = None,
) -> dict[str, Metric]:
    """Time each candidate: median latency of one call in ms, with the interquartile range over the rounds as spread.

    `clock` gives nanoseconds; `reference` replaces the reference kernel. The context of each metric says how many rounds and
    calls, the load average, and whether the machine was busy or the candidate not steady. Raises InvalidSetting if there is
    no candidate.
    """
    if not candidates:
        raise InvalidSetting("there is nothing to measure; give at least one candidate")
    stopwatch = _Stopwatch(clock, settings)
    watch = reference or reference_kernel()
    stopwatch.warm_up(watch, 1)
    calls = {name: stopwatch.calibrate(kernel) for name, kernel in candidates.items()}
    steady = {name: stopwatch.warm_up(kernel, calls[name]) for name, kernel in candidates.items()}
    rounds, machine = _trusted(stopwatch.rounds(candidates, calls, watch), settings)
    metrics = {}
    for name in candidates:
        low, median, high = np.percentile([r.times[name] / MS for r in rounds], (25, 50, 75))
        context = f"median of {len(rounds)} interleaved rounds of {calls[name]} calls; {machine}"
        context += "" if steady[name] else f"; not steady after {settings.most_warmups} warm-up samples"
        metrics[name] = Metric(float(median), "ms", "measured", float(high - low), context)
    return metrics


@dataclass(frozen=True)
class _Round:
    """Nanoseconds of one call of each candidate, and of the reference kernel before and after."""

    times: Mapping[str, float]
    references: tuple[int, int]


@dataclass(frozen=True)
class _Stopwatch:
    clock: Callable[[], int]
    settings: MeasureSettings

    def sample(self, kernel: Kernel, calls: int) -> int:
        """Nanoseconds of `calls` calls, all work done."""
        synchronize = self.settings.synchronize or _nothing
        synchronize()
        start = self.clock()
        for _ in range(calls):
            kernel()
        synchronize()
        return self.clock() - start

    def calibrate(self, kernel: Kernel) -> int:
        """Find how many calls last `sample_ms`; of three samples the fastest counts, for the first calls are slow."""
        wanted, most, calls = self.settings.sample_ms * MS, self.settings.most_calls, 1
        for _ in range(most.bit_length()):  # calls at least double, so they reach the most
            taken = min(self.sample(kernel, calls) for _ in range(3))
            if taken >= wanted or calls == most:
                break
            calls = min(most, max(2 * calls, ceil(calls * wanted / taken) if taken > 0 else 0))
        return calls

    def warm_up(self, kernel: Kernel, calls: int) -> bool:
        """Call until the last samples agree; tells whether they came to."""
        wanted, last = self.settings.steady_samples, deque[int](maxlen=self.settings.steady_samples)
        for _ in range(self.settings.most_warmups):
            last.append(self.sample(kernel, calls))
            if len(last) == wanted and max(last) <= (1 + self.settings.steady_within) * min(last):
                return True
        return False

    def rounds(self, candidates: Mapping[str, Kernel], calls: Mapping[str, int], watch: Kernel) -> Iterator[_Round]:
        """Run all the rounds that are allowed, in alternating order."""
        order, before = list(candidates), self.sample(watch, 1)
        for _ in range(self.settings.rounds + self.settings.extra_rounds):
            times = {name: self.sample(candidates[name], calls[name]) / calls[name] for name in order}
            after = self.sample(watch, 1)
            yield _Round(times, (before, after))
            order, before = order[::-1], after


def _trusted(rounds: Iterator[_Round], settings: MeasureSettings) -> tuple[list[_Round], str]:
    """Draw rounds until enough are quiet, else take the least disturbed; with what to say of the machine."""
    seen: list[_Round] = []
    quiet: list[_Round] = []
    for one in rounds:
        seen.append(one)
        fastest = min(t for r in seen for t in r.references)
        quiet = [r for r in seen if max(r.references) <= (1 + settings.busy_above) * fastest]
        if len(quiet) == settings.rounds:
            return quiet, f"machine quiet in {len(quiet)} of {len(seen)} rounds, {_load()}"
    calmest = sorted(seen, key=lambda r: max(r.references))[: settings.rounds]
    return calmest, f"busy machine, quiet in {len(quiet)} of {len(seen)} rounds, {_load()}"


def _load() -> str:
    cores = f"{os.cpu_count()} cores"
    return f"load average {os.getloadavg()[0]:.2f} on {cores}" if sys.platform != "win32" else cores


def _nothing() -> None:
    """Wait for nothing: the work is done when the call returns."""
