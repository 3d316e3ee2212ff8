"""Latency, measured: warm-up until steady, interleaved rounds, median and spread, and a watch on the machine itself.

All candidates are timed in turn in every round, so that a change of the machine's speed meets all alike. Between any two of
them a small reference kernel is timed. What is timed beside a slow one, or is far slower than the candidate's own best, was
disturbed by other work: such samples are not trusted and are repeated.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from nas.budget import Metric
from nas.errors import InvalidSetting

MS = 1_000_000  # nanoseconds
BUSY = "machine busy"
Kernel = Callable[[], object]


@dataclass(frozen=True)
class MeasureSettings:
    """How to measure.

    A sample is the median of so many calls, each timed by itself, as last `sample_ms`, but `least_calls` to `most_calls`; the
    `settling_calls` before them bring the candidate's weights back into the cache and are not timed. Warm-up ends when
    `steady_samples` samples in a row differ by at most `steady_within` of the fastest, at the latest after `most_warmups`.
    A sample is disturbed if the reference kernel beside it, or the sample itself, takes more than 1 + `busy_above` times its
    fastest; at most `extra_rounds` are added to make up for disturbed ones. `timer` times one call in nanoseconds, None by
    the clock: a device that works in the background needs its own.
    """

    rounds: int = 15
    extra_rounds: int = 30
    sample_ms: float = 2.0
    least_calls: int = 3
    most_calls: int = 200
    settling_calls: int = 2
    steady_samples: int = 5
    steady_within: float = 0.1
    most_warmups: int = 50
    busy_above: float = 0.15
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
    def calm(self) -> bool:
        """Whether enough of it was not disturbed by other work."""
        return BUSY not in self.note

    @property
    def metric(self) -> Metric:
        """The same as a metric."""
        context = f"median of {self.rounds} interleaved rounds of {self.calls} calls; {self.machine}"
        return Metric(self.ms, "ms", "measured", self.spread_ms, f"{context}; {self.note}" if self.note else context)


def reference_kernel() -> Kernel:
    """A matrix product of a quarter of a millisecond, whose time tells what else the machine does."""
    matrix = np.full((256, 256), 0.5, dtype=np.float32)
    return lambda: matrix @ matrix


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
    samples = stopwatch.rounds(candidates, calls, watch)
    fastest = min(sample.reference for taken in samples.values() for sample in taken)
    undisturbed = {name: _quiet(taken, fastest, settings) for name, taken in samples.items()}
    # the best of a few samples may have been disturbed, too: then what all met alike compares those that are not calm
    few = any(len(quiet) < settings.rounds / 3 for quiet in undisturbed.values())
    found = {}
    for name, taken in samples.items():
        quiet = undisturbed[name]
        calm = len(quiet) >= settings.rounds
        kept = taken if few and not calm else quiet
        low, median, high = np.percentile([sample.time / MS for sample in kept], (25, 50, 75))
        machine = f"{'machine' if calm else 'busy machine,'} quiet in {len(quiet)} of {len(taken)} rounds, {load()}"
        doubts = [BUSY] * (not calm)
        doubts += [] if steady[name] else [f"not steady after {settings.most_warmups} warm-up samples"]
        found[name] = Timing(float(median), float(high - low), len(kept), calls[name], machine, "; ".join(doubts))
    return found


@dataclass(frozen=True)
class _Sample:
    """Nanoseconds of one call, and of the slower of the reference kernels before and after."""

    time: float
    reference: int


def _quiet(taken: Sequence[_Sample], fastest: int, settings: MeasureSettings) -> list[_Sample]:
    """The samples that nothing disturbed, where the reference kernel may take `fastest` nanoseconds."""
    most = 1 + settings.busy_above
    beside = [sample for sample in taken if sample.reference <= most * fastest]
    own = min((sample.time for sample in beside), default=0.0)
    return [sample for sample in beside if sample.time <= most * own]


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

    def reference(self, watch: Kernel) -> int:
        """Nanoseconds of the reference kernel with its data in the cache."""
        watch()
        return self.wall(watch)

    def rounds(self, candidates: Mapping[str, Kernel], calls: Mapping[str, int], watch: Kernel) -> dict[str, list[_Sample]]:
        """Sample all candidates in every round, in alternating order; then those that lack quiet samples, a few times more."""
        samples: dict[str, list[_Sample]] = {name: [] for name in candidates}
        before = self.reference(watch)
        order, fastest = list(candidates), before
        for number in range(self.settings.rounds + self.settings.extra_rounds):
            if number >= self.settings.rounds:
                order = [n for n in order if len(_quiet(samples[n], fastest, self.settings)) < self.settings.rounds]
            for name in order:
                time = self.sample(candidates[name], calls[name])
                after = self.reference(watch)
                samples[name].append(_Sample(time, max(before, after)))
                before, fastest = after, min(fastest, after)
            order = order[::-1]
        return samples


def load() -> str:
    """What the machine has to do at the moment."""
    cores = f"{os.cpu_count()} cores"
    return f"load average {os.getloadavg()[0]:.2f} on {cores}" if sys.platform != "win32" else cores
