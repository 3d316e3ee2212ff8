"""Budgets in ms: what tells the time of a cut network while it is planned, and the clock that decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import hypot
from pathlib import Path

import torch
import torch.nn as nn

from compress.export import write_format
from compress.prune.clock import LATENCY, TimeModel, fit, probes
from compress.prune.pipeline import Recipe, Subject
from nas.budget import Budget, Metric
from nas.cli.checking import deliverable
from nas.cli.progress import bar, log
from nas.cli.pruning.job import PruneJob
from nas.cli.timing import FORMATS
from nas.cost.measure import BUSY, MeasureSettings
from nas.latency.bench import Bench
from nas.plan import Plan
from nas.runtimes import named
from nas.torch_seeding import generator

# enough to tell widths apart: their times differ by more than such a measurement is off
QUICK = MeasureSettings(rounds=7, extra_rounds=7, least_calls=1, settling_calls=1, steady_within=0.2, most_warmups=8)
AT_ONCE = 8
WHOLE = "whole"
WIDE = 16
# of the original's time: what is not below it is nothing to wait for
NO_FASTER = 0.95


@dataclass(frozen=True)
class SideBySide:
    """Times of the original and of a cut network in ms, from one interleaved measurement."""

    original: Metric
    cut: Metric

    @property
    def ratio(self) -> float:
        """What part of the original's time the cut network takes."""
        return self.cut.value / self.original.value

    @property
    def spread(self) -> float:
        """How far that part is off, from the spread of both times."""
        return self.ratio * hypot(*((m.spread or 0.0) / m.value for m in (self.original, self.cut)))

    def slower(self, macs: float, recipe: Recipe) -> str:
        """What is to be said of a network with `macs` of the original's multiply-adds that is not faster; else nothing.

        On a busy machine both times were disturbed alike, and what is beyond the spread of their ratio is said all the same.
        """
        busy = any(BUSY in m.context for m in (self.original, self.cut))
        if macs >= 1 or self.ratio <= (1 + self.spread if busy else NO_FASTER):
            return ""
        wider = "" if recipe.exact and recipe.round_to % WIDE == 0 else f", or give --round-to {WIDE}"
        return (
            f"{macs:.0%} of the multiply-adds, and {self.ratio:.0%} of the original's time (±{self.spread:.0%}): kernels work "
            f"on blocks of channels, and these widths fall between them; ask for time, such as --budget 60%latency{wider}"
        )


@dataclass
class Clock:
    """Times networks in the target runtime beside the original; exported files go to `folder`."""

    job: PruneJob
    folder: Path
    original: Path | None = None

    def side_by_side(self, module: nn.Module | Path) -> SideBySide:
        """Time a network, or an exported file of it, beside the original."""
        if self.original is None:
            with deliverable(self.job.original.name):
                self.original = self.exported(self.job.original.module, "original")
        path = module if isinstance(module, Path) else self.exported(module, "cut")
        example = self.images()
        judged = any(on_time(aim.budgets) for aim in self.job.aims)
        take = self.job.bench.judge_files if judged else self.job.bench.time_files
        times = take({self.original: example, path: example})
        target = str(self.job.bench.target)
        one, two = (replace(times[p].metric, context=f"{target}; {times[p].metric.context}") for p in (self.original, path))
        return SideBySide(one, two)

    def exported(self, module: nn.Module, name: str) -> Path:
        """Write a network as the file that the target runtime runs."""
        suffix = named(self.job.bench.name).suffix
        path = self.folder / f"{name}{suffix}"
        module = module.eval().cpu().to(memory_format=torch.contiguous_format)
        write_format(FORMATS[suffix], module, self.images()[:1], path)
        return path

    def images(self) -> torch.Tensor:
        """Noise of the shape that is timed."""
        return torch.randn(self.job.settings.batch, *self.job.original.shape, generator=generator(0, "images"))


def time_model(job: PruneJob, subject: Subject) -> TimeModel:
    """Time the network at some widths, and fit what tells the time at others. Raises InvalidSetting if it cannot."""
    recipe = job.recipe
    plans = probes(subject.widths, recipe.round_to, recipe.least, recipe.seed, recipe.exact)
    whole, others = plans[WHOLE], [name for name in plans if name != WHOLE]
    bench, reference = replace(job.bench, measuring=QUICK), 0.0
    times: dict[str, float] = {}
    with bar(f"timing widths on {job.bench.target.runtime}", len(others)) as shown:
        for start in range(0, len(others), AT_ONCE - 1):
            chosen = others[start : start + AT_ONCE - 1]
            found = _times(bench, {WHOLE: whole, **{name: plans[name] for name in chosen}})
            reference = reference or found[WHOLE]
            # the machine may be faster or slower by now: times count relative to the whole network's
            times |= {name: ms * reference / found[WHOLE] for name, ms in found.items()}
            shown.update(start + len(chosen))
    model = fit([plans[name] for name in times], list(times.values()))
    log(f"time model: channels in blocks of {model.block}, {model.error:.1%} off on {model.networks} widths of the network")
    return model


def _times(bench: Bench, plans: Mapping[str, Plan]) -> dict[str, float]:
    return {name: timing.ms for name, timing in bench.time_plans(plans).items()}


def on_time(budgets: tuple[Budget, ...]) -> Budget | None:
    """The budget in ms among those of a network, None if there is none."""
    return next((budget for budget in budgets if budget.metric == LATENCY), None)
