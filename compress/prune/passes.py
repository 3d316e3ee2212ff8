"""The whole pass: remove blocks where that is asked for, then cut in one step or several, until all budgets hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from compress.prune.attention import prepare
from compress.prune.depth import residual_blocks, without
from compress.prune.distortion import divergences
from compress.prune.history import History
from compress.prune.pipeline import (
    Calibration,
    Pruned,
    Ranking,
    Recipe,
    Report,
    Subject,
    allocated,
    analysed,
    carved,
    further,
    needs_data,
    ranked,
    silent,
    to_do,
)
from compress.prune.widths import WidthModel
from nas.budget import Budget, Cost, check
from nas.cost.counting import TOTALS, count
from nas.cost.trace import trace
from nas.errors import InfeasibleBudget, InvalidSetting
from nas.training.calibration import recalibrate

# numbers of blocks that are tried, of those that could be removed
DEPTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)
# plans that are tried where networks cost other than planned
ATTEMPTS = 4


def pruned(
    subject: Subject,
    budgets: Sequence[Budget],
    recipe: Recipe,
    calibration: Calibration = Calibration(),  # noqa: B008 - frozen
    report: Report = silent,
) -> Pruned:
    """Cut `subject` until all `budgets`, which are absolute, hold; batch norms are recalibrated.

    With several steps, what is left is ranked anew after each; limits fall geometrically. Raises InvalidBudget, InvalidSetting,
    InfeasibleBudget.
    """
    so_far = approached(shortened(subject, budgets, recipe, calibration, report), budgets, recipe, calibration, report)
    if not to_do(so_far.subject, budgets):
        return so_far
    ranking = ranked(so_far.subject, recipe, calibration, report)
    return cut_down(so_far, ranking, budgets, recipe, calibration)


def cut_down(so_far: Pruned, ranking: Ranking, budgets: Sequence[Budget], recipe: Recipe, calibration: Calibration) -> Pruned:
    """Cut until the network that comes of it, traced again, meets absolute budgets.

    Units of a group that own different numbers of channels cost other than the average of them that widths are planned by:
    the limits of the next plan are then lower by as much, at most ATTEMPTS times. Raises InvalidBudget, InfeasibleBudget.
    """
    limits = tuple(budgets)
    for attempt in range(1, ATTEMPTS + 1):
        found = as_traced(further(so_far, ranking, allocated(so_far.subject, ranking, limits, recipe), calibration))
        if attempt == ATTEMPTS or not check(budgets, found.subject.cost):
            break
        limits = tuple(_lower(limit, found.subject.cost, budget) for limit, budget in zip(limits, budgets, strict=True))
    return found


def as_traced(found: Pruned) -> Pruned:
    """With the plan of the network as it is, where that costs other than its widths were planned to."""
    subject = found.subject
    plan = trace(subject.module, subject.example[:1])
    planned, real = subject.widths.cost({}, TOTALS), count(plan, TOTALS)
    if all(planned.value(name) == real.value(name) for name in TOTALS):
        return found
    return replace(found, subject=replace(subject, widths=WidthModel(plan, subject.groups, subject.widths.latency)))


def _lower(limit: Budget, cost: Cost, budget: Budget) -> Budget:
    """A limit that is lower by as much as the cost is over the budget."""
    value = cost.value(budget.metric)
    return limit if value is None or value <= budget.limit else replace(limit, limit=limit.limit * budget.limit / value)


def shortened(
    subject: Subject, budgets: Sequence[Budget], recipe: Recipe, calibration: Calibration, report: Report = silent
) -> Pruned:
    """`subject` as the start of a pass: without some residual blocks where the recipe says so, and nothing else cut."""
    blocks: tuple[str, ...] = ()
    if recipe.depth:
        subject, blocks = without_some(subject, budgets, recipe, calibration, report)
    return Pruned(subject, History(blocks), {group.name: group.width for group in subject.groups})


def approached(
    start: Pruned, budgets: Sequence[Budget], recipe: Recipe, calibration: Calibration, report: Report = silent
) -> Pruned:
    """What comes before the last step: all steps but one are cut."""
    found = start
    for step in range(1, recipe.steps):
        limits = [_at_step(budget, start.subject.cost, step, recipe.steps) for budget in budgets]
        if to_do(found.subject, limits):
            ranking = ranked(found.subject, recipe, calibration, report)
            found = further(found, ranking, allocated(found.subject, ranking, limits, recipe), calibration)
    return found


def _at_step(budget: Budget, start: Cost, step: int, steps: int) -> Budget:
    """The limit on the way from what the network costs to the budget."""
    value = start.value(budget.metric)
    if step == steps or value is None or value <= budget.limit:
        return budget
    return replace(budget, limit=value * (budget.limit / value) ** (step / steps))


# -- depth


def without_some(
    subject: Subject, budgets: Sequence[Budget], recipe: Recipe, calibration: Calibration, report: Report
) -> tuple[Subject, tuple[str, ...]]:
    """Remove as many residual blocks as leave, after the cut that is then due, the least distortion of the outputs.

    Blocks go in the order of the distortion that each causes by itself (N2N, Ashok et al. 2018, removes layers first, too).
    Raises InvalidSetting without data to judge by, or where there is no such block; InfeasibleBudget, InvalidBudget.
    """
    if not calibration.curves:
        raise InvalidSetting(f"{needs_data(recipe)}; give --data")
    names = residual_blocks(subject.module, subject.example)
    if not names:
        raise InvalidSetting(f"--depth: {type(subject.module).__name__} has no residual block that could go; leave it out")
    alone = {name: without(subject.module, [name]).eval() for name in names}
    losses = divergences(subject.module, alone, calibration.curves)
    order = sorted(names, key=lambda name: losses[name])
    quick = replace(recipe, steps=1, depth=False)
    counts = [number for number in DEPTHS if number <= len(order)]
    found: list[tuple[float, Subject, tuple[str, ...]]] = []
    for tried, number in enumerate(counts, 1):
        gone = tuple(order[:number])
        shorter = analysed(without(subject.module, gone), subject.example, subject.widths.latency) if gone else subject
        report("blocks removed", tried, len(counts))
        try:
            candidate = _quickly(shorter, budgets, quick, calibration)
        except InfeasibleBudget:
            if tried == len(counts) and not found:
                raise
            continue  # it may be feasible with more blocks gone
        loss = divergences(subject.module, {"": candidate}, calibration.curves)[""]
        found.append((loss, shorter, gone))
        if not to_do(shorter, budgets):
            break
    _, chosen, gone = min(found, key=lambda row: row[0])
    if gone:
        recalibrate(chosen.module, calibration.norms)
    return chosen, gone


def _quickly(subject: Subject, budgets: Sequence[Budget], recipe: Recipe, calibration: Calibration) -> nn.Module:
    """What a cut without curves makes of a network, to compare depths by."""
    plain = replace(recipe, allocation="uniform")
    if not to_do(subject, budgets):
        module = prepare(subject.module).eval()
        recalibrate(module, calibration.norms)
        return module
    ranking = ranked(subject, plain, calibration)
    return carved(subject, ranking, allocated(subject, ranking, budgets, plain), calibration)[0].module
