"""`--space auto`: family and macro-architecture by evidence, the short training of a handful of networks at the budget.

Each candidate stands for a space: its largest network, sized to the budget or, where the time is short, to the part of it that
still sees the data a few times (docs/benchmarks.md). A zero-cost score leaves a handful: of networks of one family that cost
the same and see the image in the same detail, those with the most parameters, which is the score that others have to beat
(White et al. 2022). contest.py trains these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nas.architecture import SearchSpace
from nas.budget import Budget, check
from nas.cli.space import sizing
from nas.cost.counting import count
from nas.evaluation.alone import Lesson, fresh
from nas.latency.bench import Bench
from nas.training.speed import seconds_per_step
from search_spaces import LARGEST_TO_BUDGET, LEAST_WIDTH, MOST_OF_SMALLEST, MOST_WIDTH, Family, count_metrics, fitted
from search_spaces.staged import DataShape, Macro

# a macro-architecture that fills less of the budget at its greatest width is too small for it
LEAST_SHARE = 0.5
HANDFUL = 3  # of one family that see the image in one detail
# passes over the data that a network needs at least in the time of its last training
LEAST_EPOCHS = 20.0
LEAST_FRACTION = 0.1
# with fewer passes, even of the smaller network, nothing of a family can win
FEWEST_EPOCHS = 3.0
# of a supernet: its largest network in limits
ROOM = (LARGEST_TO_BUDGET, 1.5)
# multiply-adds a pixel below which a budget is tight: half the resolution is tried, too, down to this side
TIGHT = 1000
LEAST_SIDE = 12
# times the multiply-adds that a limit in ms seems to allow: timing brings down what is too much
GENEROUS = 4.0
FEW_IMAGES = 32


@dataclass(frozen=True)
class Wanted:
    """What candidates are made for: shape of the data, budgets, options of each family, the bench for budgets in ms."""

    shape: DataShape
    budgets: tuple[Budget, ...]
    options: Mapping[str, Any]
    bench: Bench | None

    def options_at(self, family: str, side: int) -> Any:  # noqa: ANN401
        """The options of a family for images of `side` pixels, unless the user has named resolutions."""
        options = self.options[family]
        return options if options.resolutions or side == self.shape.resolution else replace(options, resolutions=(side,))


@dataclass(frozen=True)
class Form:
    """A macro-architecture of a family on images of `side` pixels, and the limits that its networks are sized to.

    `clocked` are the multiply-adds that stand for a limit in ms.
    """

    family: str
    spaces: Family
    macro: Macro
    counted: tuple[Budget, ...]
    side: int
    clocked: tuple[Budget, ...] = ()

    @property
    def limits(self) -> tuple[Budget, ...]:
        """All that a plan is held against."""
        return (*self.counted, *self.clocked)

    def paced(self, macs: float) -> Form:
        """The same form, with other multiply-adds for a limit in ms."""
        return replace(self, clocked=tuple(replace(b, limit=macs) for b in self.clocked))

    def sized(self, ratio: float, wanted: Wanted) -> tuple[float, SearchSpace]:
        """The width and the space whose largest network costs at most `ratio` times the limits."""
        options = wanted.options_at(self.family, self.side)
        return fitted(self.spaces, self.macro, (wanted.shape, self.limits, options), ratio)

    def at(self, fraction: float, wanted: Wanted) -> Candidate | None:
        """The space whose largest network costs this fraction of the limits; None if even the narrowest costs too much."""
        width, space = self.sized(fraction, wanted)
        cost = count(space.plan(space.largest()))
        if check(self.limits, cost):
            return None
        share = max((cost.values()[b.metric] / b.limit for b in self.limits), default=1.0)
        suits = LEAST_WIDTH <= width < MOST_WIDTH and share >= LEAST_SHARE * fraction
        return Candidate(self, fraction, space, cost.values(), suits)


@dataclass(frozen=True)
class Candidate:
    """A space whose largest network meets the budgets, with what that costs; `suits` where its widths are reasonable.

    `step_seconds` is a training step of that network, 0 as long as it was not timed; `weights` are those of its last short
    training.
    """

    form: Form
    fraction: float
    space: SearchSpace
    cost: Mapping[str, float]
    suits: bool = True
    step_seconds: float = field(default=0.0, compare=False)
    weights: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def family(self) -> str:
        """The name of its family."""
        return self.form.family

    @property
    def macs(self) -> float:
        """Multiply-adds of its largest network."""
        return self.cost["macs"]

    @cached_property
    def detail(self) -> int:
        """The side in pixels of what the first layer puts out: how much of the image all others see."""
        return self.space.plan(self.space.largest()).layers[0].out_size[0]

    def with_room(self, wanted: Wanted) -> SearchSpace:
        """The space of the form for a supernet: with networks on both sides of the limits.

        Forms of few blocks have none that is much smaller than the largest; where the smallest one is not clearly within the
        limits, the largest one is made smaller, down to the limits.
        """
        for ratio in ROOM:
            space = self.form.sized(ratio, wanted)[1]
            values = count(space.plan(space.smallest())).values()
            if all(values[b.metric] <= MOST_OF_SMALLEST * b.limit for b in self.form.limits):
                return space
        return self.space


def candidates(families: Mapping[str, Family], wanted: Wanted) -> list[Candidate]:
    """Every macro-architecture of the families that suits the budget, each space once, the costliest first.

    Where the budget is tight for the resolution of the data, smaller ones are tried, too.
    """
    found: dict[str, Candidate] = {}
    for name, family in families.items():
        counted, clocked = _limits(family, wanted, wanted.options[name])
        for side in sides(wanted.shape.resolution, (*counted, *clocked)):
            made: list[Candidate | None] = []
            for macros in (family.macros, family.spare):  # the spare ones where none of the others suits
                if not any(c and c.suits for c in made):
                    made += [Form(name, family, macro, counted, side, clocked).at(1.0, wanted) for macro in macros]
            for candidate in [c for c in made if c and c.suits] or [c for c in made if c][-1:]:
                found.setdefault(candidate.space.id, candidate)
    return sorted(found.values(), key=lambda c: -c.macs)


def tight(limits: Sequence[Budget], side: int) -> bool:
    """Whether the multiply-adds that limits allow are few for an image of `side` pixels."""
    return any(b.metric == "macs" and b.limit < TIGHT * side**2 for b in limits)


def sides(resolution: int, limits: Sequence[Budget]) -> tuple[int, ...]:
    """The resolution of the data, and the halves of it that a budget in multiply-adds makes worth a try."""
    found = [resolution]
    while tight(limits, found[-1]) and found[-1] // 2 >= LEAST_SIDE:
        found.append(found[-1] // 2)
    return tuple(found)


def _limits(family: Family, wanted: Wanted, options: Any) -> tuple[tuple[Budget, ...], tuple[Budget, ...]]:  # noqa: ANN401
    """The budgets that a plan of the family can be held against, and the multiply-adds that stand for those in ms."""
    known = count_metrics(family, wanted.shape, options)
    limits = tuple(sizing(wanted.budgets, family, wanted.shape, options, wanted.bench))
    counted = tuple(b for b in limits if b in wanted.budgets and not b.relative and b.metric in known)
    return counted, tuple(replace(b, limit=GENEROUS * b.limit) for b in limits if b not in wanted.budgets)


def handful(
    found: Sequence[Candidate], wanted: Wanted, lesson: Lesson, setting: tuple[int, torch.device], seconds: float
) -> list[Candidate]:
    """The candidates that are worth a training, timed, the costliest first; `seconds` is that of the last training, 0 for any.

    Within it a network has to see the data a few times, as its speed on this machine tells; one that cannot is made smaller,
    and left out where that does not help while others are faster. `setting` is the seed and the device.
    """
    kept: list[Candidate] = []
    batches = max(1, len(lesson.data.train) // lesson.config.batch_size)
    for group in dict.fromkeys(map(_group, found)):
        mine = sorted((c for c in found if _group(c) == group), key=lambda c: -c.cost["params"])[:HANDFUL]
        for candidate in mine:
            first = timed(candidate, lesson, *setting)
            epochs = seconds / (first.step_seconds * batches) if seconds else LEAST_EPOCHS
            share = max(LEAST_FRACTION, epochs / LEAST_EPOCHS)
            smaller = None if share >= 1 else candidate.form.at(share, wanted)
            kept.append(timed(smaller, lesson, *setting) if smaller else first)
    quick = [c for c in kept if not seconds or c.step_seconds * batches * FEWEST_EPOCHS <= seconds]
    fastest = min(kept, key=lambda c: c.step_seconds)
    return sorted({c.space.id: c for c in quick or [fastest]}.values(), key=lambda c: -c.macs)


def _group(candidate: Candidate) -> tuple[str, int, int]:
    """Candidates whose number of parameters says which is better."""
    return candidate.family, candidate.form.side, candidate.detail


def timed(candidate: Candidate, lesson: Lesson, seed: int, device: torch.device) -> Candidate:
    """The candidate with the seconds of a training step of its largest network, measured on a few images unless it has them."""
    if candidate.step_seconds:
        return candidate
    space = candidate.space
    batch, *image = lesson.shape(space.resolutions[-1])
    few = min(batch, FEW_IMAGES)
    module = fresh(space, space.largest(), seed, device)
    seconds = seconds_per_step(module, (few, image[0], image[1], image[2]), device, lesson.config.precision)
    return replace(candidate, step_seconds=seconds * batch / few)
