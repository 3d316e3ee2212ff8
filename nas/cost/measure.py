"""Latency, measured: warm-up until steady, interleaved rounds, median and spread, and a watch on the machine itself.

All candidates are timed in turn in every round, so that a change of the machine's speed meets all alike. Between the rounds a
small reference kernel is timed: a round beside a slow one is not trusted and is repeated.
"""

from __future__ import annotations

import os
import statistics
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

    A sample is the median of so many calls, each timed by itself, as last `sample_ms`, but `least_calls` to `most_calls`; the
    `settling_calls` before them bring the candidate's weights back into the cache and are not timed. Warm-up ends when
    `steady_samples` samples in a row differ by at most `steady_within` of the fastest, at the latest after `most_warmups`. A
    round is busy if the reference kernel beside it takes more than 1 + `busy_above` times its fastest; at most `extra_rounds`
    are added to make up for busy ones. `timer` times one call in nanoseconds, None by the clock: a device that works in the
    background needs its own.
    """

    rounds: int = 15
    extra_rounds: int = 10
    sample_ms: float = 2.0
    least_calls: int = 3
    most_calls: int = 200
    settling_calls: int = 2
    steady_samples: int = 5
    steady_within: float = 0.1
    most_warmups: int = 50
    busy_above: float = 0.25
    timer: Callable[[Kernel], int] | None = None

    def __post_init__(self) -> None:
        """Check the values. Raises InvalidSetting."""
        for name in ("rounds", "least_calls", "most_calls", "steady_samples", "most_warmups"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"{name}={getattr(self, name)} is too small to measure; expected 1 or more")
        for name in ("extra_rounds", "sample_ms", "settling_calls", "steady_within", "busy_above"):
            if not getattr(self, name) >= 0:
                raise InvalidSetting(f"{name}={getattr(self, name)} is negative; expected 0 or more")


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range over the rounds in ms, and how it was measured; `note` names what is doubtful."""

    ms: float
    spread_ms: float
    rounds: int
    calls: int
    machine: str
    note: str = ""

    @property
    def metric(self) -> Metric:
        """The same as a metric."""
        context = f"median of {self.rounds} interleaved rounds of {self.calls} calls; {self.machine}"
        return Metric(self.ms, "ms", "measured", self.spread_ms, f"{context}; {self.note}" if self.note else context)


def reference_kernel() -> Kernel:
    """A matrix product of about a millisecond, whose time tells what else the machine does."""
    matrix = np.full((256, 256), 0.5, dtype=np.float32)
    return lambda: [matrix @ matrix for _ in range(4)]


def measure(
    candidates: Mapping[str, Kernel],
    settings: MeasureSettings,
    clock: Callable[[], int] = time.perf_counter_ns,
    reference: Kernel | None = None,
) -> dict[str, Timing]:
    """Time each candidate, all in turn in every round.

    `clock` gives nanoseconds; `reference` replaces the reference kernel. Raises InvalidSetting if there is no candidate.
    """
    if not candidates:
        raise InvalidSetting("there is nothing to measure; give at least one candidate")
    stopwatch, watch = _Stopwatch(clock, settings), reference or reference_kernel()
    for _ in range(settings.steady_samples):
        stopwatch.wall(watch)
    calls = {name: stopwatch.calls_for(kernel) for name, kernel in candidates.items()}
    steady = {name: stopwatch.warm_up(kernel, calls[name]) for name, kernel in candidates.items()}
    rounds, machine, calm = _trusted(stopwatch.rounds(candidates, calls, watch), settings)
    found = {}
    for name in candidates:
        low, median, high = np.percentile([r.times[name] / MS for r in rounds], (25, 50, 75))
        doubts = ["machine busy"] * (not calm)
        doubts += [] if steady[name] else [f"not steady after {settings.most_warmups} warm-up samples"]
        found[name] = Timing(float(median), float(high - low), len(rounds), calls[name], machine, "; ".join(doubts))
    return found


@dataclass(frozen=True)
class _Round:
    """Nanoseconds of one call of each candidate, and of the reference kernel before and after."""

    times: Mapping[str, float]
    references: tuple[int, int]


@dataclass(frozen=True)
class _Stopwatch:
    clock: Callable[[], int]
    settings: MeasureSettings

    def wall(self, kernel: Kernel) -> int:
        """Nanoseconds of one call by the clock."""
        start = self.clock()
        kernel()
        return self.clock() - start

    def sample(self, kernel: Kernel, calls: int) -> float:
        """Median nanoseconds of `calls` calls."""
        timer = self.settings.timer or self.wall
        for _ in range(self.settings.settling_calls):
            kernel()
        return statistics.median([timer(kernel) for _ in range(calls)])

    def calls_for(self, kernel: Kernel) -> int:
        """How many calls last `sample_ms`; the first calls are slow and do not count."""
        fastest = self.sample(kernel, self.settings.least_calls)
        wanted = ceil(self.settings.sample_ms * MS / fastest) if fastest > 0 else self.settings.most_calls
        return min(self.settings.most_calls, max(self.settings.least_calls, wanted))

    def warm_up(self, kernel: Kernel, calls: int) -> bool:
        """Call until the last samples agree; tells whether they came to."""
        wanted, last = self.settings.steady_samples, deque[float](maxlen=self.settings.steady_samples)
        for _ in range(self.settings.most_warmups):
            last.append(self.sample(kernel, calls))
            if len(last) == wanted and max(last) <= (1 + self.settings.steady_within) * min(last):
                return True
        return False

    def rounds(self, candidates: Mapping[str, Kernel], calls: Mapping[str, int], watch: Kernel) -> Iterator[_Round]:
        """Run all the rounds that are allowed, in alternating order."""
        order, before = list(candidates), self.wall(watch)
        for _ in range(self.settings.rounds + self.settings.extra_rounds):
            times = {name: self.sample(candidates[name], calls[name]) for name in order}
            after = self.wall(watch)
            yield _Round(times, (before, after))
            order, before = order[::-1], after


def _trusted(rounds: Iterator[_Round], settings: MeasureSettings) -> tuple[list[_Round], str, bool]:
    """Draw rounds until enough are quiet, else take the least disturbed; what to say of the machine, and if it was calm."""
    seen: list[_Round] = []
    quiet: list[_Round] = []
    for one in rounds:
        seen.append(one)
        fastest = min(t for r in seen for t in r.references)
        quiet = [r for r in seen if max(r.references) <= (1 + settings.busy_above) * fastest]
        if len(quiet) == settings.rounds:
            return quiet, f"machine quiet in {len(quiet)} of {len(seen)} rounds, {load()}", True
    calmest = sorted(seen, key=lambda r: max(r.references))[: settings.rounds]
    return calmest, f"busy machine, quiet in {len(quiet)} of {len(seen)} rounds, {load()}", False


def load() -> str:
    """What the machine has to do at the moment."""
    cores = f"{os.cpu_count()} cores"
    return f"load average {os.getloadavg()[0]:.2f} on {cores}" if sys.platform != "win32" else cores
