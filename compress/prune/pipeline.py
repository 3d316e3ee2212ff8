"""The parts of the pass: analyse -> rank -> allocate -> cut -> recalibrate, on any nn.Module.

`analysed(module, example)` gives a Subject; `compress.prune.passes.pruned` goes all the way with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from compress.prune.allocation import ALLOCATIONS
from compress.prune.attention import prepare
from compress.prune.compensation import Moments, compensated, moments
from compress.prune.dependencies import analyse, holders, remove
from compress.prune.distortion import Curves, curves, divided
from compress.prune.evidence import Batch, Evidence, gather
from compress.prune.execution import FAILURES, reason
from compress.prune.groups import Cut, Group, groups_after, joined
from compress.prune.history import History
from compress.prune.importance import CALIBRATED, DIFFERENTIATED, IMPORTANCES, score
from compress.prune.problem import Keep, Problem
from compress.prune.slices import assign
from compress.prune.tracking import tensors_of
from compress.prune.widths import Latency, WidthModel
from nas.budget import Budget, Cost, check
from nas.cost.trace import trace
from nas.errors import InvalidSetting, not_known
from nas.torch_seeding import generator
from nas.training.calibration import recalibrate
from nas.training.loop import autocast

# what an allocation is told of: the measured curves of the groups
CURVED = frozenset({"rd", "sensitivity"})
Report = Callable[[str, int, int], None]
# features that are kept while curves are measured, in multiples of the most that are alive at once
FEATURES = 4


@dataclass(frozen=True)
class Recipe:
    """What goes, where, and in how many steps. Raises InvalidSetting for names that are not known and numbers out of range.

    `importance` is of IMPORTANCES, `allocation` of ALLOCATIONS; "auto" for both is what the data allow. Channels are kept in
    multiples of `round_to` (always if that is `exact`, else where a budget is hit with it), of each group at least the share
    `least`. `depth` lets whole residual blocks go; `compensate`
    solves the weights of what reads the cut channels anew (see compress.prune.compensation).
    """

    importance: str = "auto"
    allocation: str = "auto"
    steps: int = 1
    round_to: int = 8
    least: float = 0.1
    depth: bool = False
    compensate: bool = True
    seed: int = 0
    exact: bool = False

    def __post_init__(self) -> None:
        for name, known in (("importance", IMPORTANCES), ("allocation", ALLOCATIONS)):
            value = getattr(self, name)
            if value != "auto" and value not in known:
                raise InvalidSetting(f"{name} {not_known(value, known, 'auto or ')}")
        if self.steps < 1:
            raise InvalidSetting(f"steps is {self.steps}; a network is cut in 1 step or more")
        if self.round_to < 1 or not 0 < self.least <= 1:
            raise InvalidSetting(f"round_to {self.round_to} and least {self.least} given; use 1 or more, and a share in (0, 1]")


@dataclass(frozen=True)
class Calibration:
    """Training images that a cut is judged by, on the device of the network; nothing for a network without data.

    `labelled` are batches of images (N, C, H, W) and labels (N,) for importances, `curves` batches for the distortion of
    the outputs, which is measured in `precision`, `norms` batches that batch norms are recalibrated on.
    """

    labelled: tuple[Batch, ...] = ()
    curves: tuple[Tensor, ...] = ()
    norms: tuple[Tensor, ...] = ()
    precision: str = "fp32"


@dataclass(frozen=True)
class Subject:
    """A network that can be cut: `module` as compress.prune.attention prepares it, what may go, and what it would cost."""

    module: nn.Module
    example: Tensor
    groups: tuple[Group, ...]
    widths: WidthModel

    @property
    def cost(self) -> Cost:
        """What it costs as it is."""
        return self.widths.cost({})


@dataclass(frozen=True)
class Ranking:
    """What the units of each group are worth: scores (width,), and curves where the allocation uses them.

    `moments` are those of the layers whose weights are solved anew.
    """

    scores: Mapping[str, np.ndarray]
    curves: Curves = field(default_factory=dict)
    moments: Mapping[str, Moments] = field(default_factory=dict)


@dataclass(frozen=True)
class Pruned:
    """A network that was cut, how to cut it again, and the units that the groups of the original keep."""

    subject: Subject
    history: History
    keep: Keep

    @property
    def module(self) -> nn.Module:
        """The network, in evaluation mode."""
        return self.subject.module


def silent(label: str, done: int, total: int) -> None:
    """Report nothing."""


def analysed(module: nn.Module, example: Tensor, latency: Latency | None = None) -> Subject:
    """Find what can be cut of `module`, which is left as it is; `latency` tells the time of a plan.

    Raises InvalidSetting if it cannot be run or traced, or if nothing can be cut.
    """
    groups = analyse(module, example)
    if not groups:
        raise InvalidSetting(
            f"nothing of {type(module).__name__} can be cut; what holds its channels: {holders(module, example)}"
        )
    network = prepare(module).eval()
    return Subject(network, example, groups, WidthModel(trace(network, example[:1]), groups, latency))


def further(found: Pruned, ranking: Ranking, keep: Keep, calibration: Calibration) -> Pruned:
    """Cut down to `keep`, as `carved` does, and go on with the history."""
    subject, cuts = carved(found.subject, ranking, keep, calibration)
    widths = found.history.widths_before(found.keep)
    return Pruned(subject, History(found.history.blocks, joined(widths, (found.history.cuts, cuts))), keep)


# -- the parts of a step


def ranked(subject: Subject, recipe: Recipe, calibration: Calibration, report: Report = silent) -> Ranking:
    """Score the units of all groups, and measure what the allocation needs to know."""
    importance, allocation = methods(recipe, calibration)
    channels, height, width = subject.example.shape[1:]
    evidence = Evidence(calibration.labelled, recipe.seed, (channels, height, width))
    if importance in DIFFERENTIATED and calibration.labelled:
        evidence = gather(subject.module, calibration.labelled, recipe.seed)
    scores = {}
    for count, group in enumerate(subject.groups, 1):
        scores[group.name] = score(importance, subject.module, group, evidence).double().numpy()
        report(f"importance {importance}", count, len(subject.groups))
    known = moments(subject.module, subject.groups, calibration.norms, recipe.seed) if recipe.compensate else {}
    ranking = Ranking(scores, moments=known)
    if allocation not in CURVED or not calibration.curves:
        return ranking
    return replace(ranking, curves=_curves(subject, ranking, recipe, calibration, report))


def _curves(subject: Subject, ranking: Ranking, recipe: Recipe, calibration: Calibration, report: Report) -> Curves:
    problem = Problem(subject.groups, ranking.scores, subject.widths, (), recipe.round_to, recipe.least, recipe.exact)
    order = {name: np.argsort(values, kind="stable").tolist() for name, values in ranking.scores.items()}

    def cut_off(group: Group, kept: int) -> dict[str, Tensor]:
        return compensated(subject.module, [(group, order[group.name][: group.width - kept])], ranking.moments)

    # the largest features of an image, about once for each part of the network that is kept, in bytes
    batches = divided(calibration.curves, FEATURES * subject.widths.cost({}, ["peak_bytes"]).metrics["peak_bytes"].value)
    with autocast(calibration.precision, subject.example.device):
        return curves(subject.module, subject.groups, problem.options, batches, cut_off, partial(report, "distortion curves"))


def methods(recipe: Recipe, calibration: Calibration) -> tuple[str, str]:
    """Importance and allocation of a recipe; automatic ones are the best that the data allow (docs/benchmarks.md).

    Raises InvalidSetting for an importance that needs data where there are none.
    """
    importance = recipe.importance
    allocation = _allocation(recipe, bool(calibration.curves))
    if importance == "auto":
        importance = "synflow" if allocation == "precrop" else "l2"
    if importance in CALIBRATED and not calibration.labelled:
        raise InvalidSetting(f"importance {importance!r} needs data; give --data, or choose l2")
    return importance, allocation


def needs_data(recipe: Recipe) -> str:
    """What of a recipe cannot be done without data, empty if all can."""
    if recipe.depth:
        return "--depth judges networks by their outputs"
    return f"importance {recipe.importance!r} is judged on images" if recipe.importance in CALIBRATED else ""


def _allocation(recipe: Recipe, has_curves: bool) -> str:
    if recipe.allocation != "auto":
        return recipe.allocation
    return "rd" if has_curves else "isomorphic"


def possible(subject: Subject, budgets: Sequence[Budget], recipe: Recipe) -> None:
    """Make sure that cuts keep absolute budgets, before anything is measured. Raises InvalidBudget, InfeasibleBudget."""
    scores = {group.name: np.zeros(group.width) for group in subject.groups}
    if due := _due(subject, budgets):
        Problem(subject.groups, scores, subject.widths, due, recipe.round_to, recipe.least, recipe.exact).check()


def allocated(subject: Subject, ranking: Ranking, budgets: Sequence[Budget], recipe: Recipe) -> Keep:
    """The units that each group keeps under absolute budgets. Raises InvalidBudget, InfeasibleBudget.

    Budgets that hold already, as some of several do after a step, are not asked for: no cut breaks them.
    """
    due = _due(subject, budgets)
    name = _allocation(recipe, bool(ranking.curves))
    problem = Problem(
        subject.groups,
        ranking.scores,
        subject.widths,
        due or tuple(budgets),
        recipe.round_to,
        recipe.least,
        recipe.exact,
        ranking.curves if name in CURVED else {},
    )
    return ALLOCATIONS[name](problem)


def _due(subject: Subject, budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    return tuple(budget for budget in budgets if budget.check(subject.cost))


def carved(subject: Subject, ranking: Ranking, keep: Keep, calibration: Calibration) -> tuple[Subject, tuple[Cut, ...]]:
    """Cut the units of the lowest scores, and recalibrate batch norms."""
    cuts = lowest(subject.groups, ranking.scores, keep)
    named = {group.name: group for group in subject.groups}
    solved = compensated(subject.module, [(named[cut.group], cut.units) for cut in cuts], ranking.moments)
    whole = prepare(subject.module)
    assign(whole, solved)
    module = remove(whole, subject.groups, cuts).eval()
    _check_runs(module, subject, cuts)
    recalibrate(module, calibration.norms)
    groups = groups_after(subject.groups, cuts)
    widths = WidthModel(subject.widths.plan_with(keep), groups, subject.widths.latency)
    return Subject(module, subject.example, groups, widths), cuts


@torch.no_grad()
def _check_runs(module: nn.Module, subject: Subject, cuts: Sequence[Cut]) -> None:
    """Run what was cut before anything is done with it. Raises InvalidSetting."""
    try:
        found = [tuple(x.shape) for x in tensors_of(module(subject.example))]
        expected = [tuple(x.shape) for x in tensors_of(subject.module(subject.example))]
        problem = "" if found == expected else f"it gives {found}, and the original {expected}"
    except FAILURES as error:
        problem = reason(error)
    if problem:
        names = ", ".join(cut.group for cut in cuts[:5])
        raise InvalidSetting(
            f"{type(module).__name__} does not run once channels of {len(cuts)} groups ({names}, ...) are cut ({problem}); "
            "numbers of channels that its forward has must be read from shapes; choose another --allocation or --budget"
        )


def lowest(groups: Sequence[Group], scores: Mapping[str, np.ndarray], keep: Mapping[str, int]) -> tuple[Cut, ...]:
    """Cuts of the units that score lowest, of equal ones the first."""
    cuts = []
    for group in groups:
        order = np.argsort(scores[group.name], kind="stable")
        gone = order[: group.width - keep.get(group.name, group.width)]
        if len(gone):
            cuts.append(Cut(group.name, tuple(sorted(int(u) for u in gone))))
    return tuple(cuts)


def to_do(subject: Subject, budgets: Sequence[Budget]) -> bool:
    """Whether something is left to cut: removed blocks alone may do."""
    return bool(check(budgets, subject.cost))


def example_of(shape: tuple[int, int, int], device: torch.device | str = "cpu") -> Tensor:
    """Two images of a shape (C, H, W) that networks are traced with: always the same noise."""
    return torch.randn(2, *shape, generator=generator(0, "example")).to(device)
