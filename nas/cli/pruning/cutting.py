"""From an aim to a cut network: allocate, cut, and under a budget in ms time the exported file and cut again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from compress.prune.clock import LATENCY, proportional
from compress.prune.passes import approached, cut_down, shortened
from compress.prune.pipeline import (
    Calibration,
    Pruned,
    Ranking,
    Recipe,
    Report,
    Subject,
    analysed,
    example_of,
    possible,
    ranked,
)
from compress.prune.widths import Latency
from nas.budget import Budget, Cost, check, format_value
from nas.cli.memory import give_freed_memory_back
from nas.cli.progress import Bar, bar, log
from nas.cli.pruning.clock import NO_FASTER, Clock, SideBySide, on_time, time_model
from nas.cli.pruning.job import Aim, PruneJob, calibration_of
from nas.cost.recount import state_bytes
from nas.errors import InfeasibleBudget, InvalidBudget, InvalidSetting
from nas.numbers import rounded

# of a limit in ms: what one file takes differs by so much from one measurement to the next
HEADROOM = 0.97
CLOSE = 0.95
ATTEMPTS = 5
# channels that kernels work on at once; other widths are taken only where they take clearly less time than the first ones
BLOCKS, CLEARLY = (16, 8), 0.95
# the weights as stored have a header, which grows with the digits of shapes
STORED = 0.998


@dataclass
class Workshop:
    """What all cuts of one original share, each made when it is first needed."""

    job: PruneJob
    clock: Clock

    @cached_property
    def calibration(self) -> Calibration:
        """Training images that cuts are judged by."""
        return calibration_of(self.job)

    @cached_property
    def subject(self) -> Subject:
        """The original, analysed on the CPU and moved to the device."""
        log(f"analysing {self.job.original.name}: which channels can be cut")
        found = analysed(self.job.original.module, example_of(self.job.original.shape))
        log(f"{len(found.groups)} groups of {sum(group.width for group in found.groups)} channels can be cut")
        device = self.job.device
        return replace(found, module=found.module.to(device), example=found.example.to(device))

    @cached_property
    def timed_subject(self) -> Subject:
        """The same, knowing the time at any width."""
        model: Latency
        try:
            model = time_model(self.job, self.subject)
        except InvalidSetting as error:  # some layers have no operation to be timed with
            log(f"{error}; time is taken to follow multiply-adds, and the clock corrects it")
            model = proportional(self.subject.widths.plan, self.clock.side_by_side(self.subject.module).original.value)
        return replace(self.subject, widths=replace(self.subject.widths, latency=model))

    @cached_property
    def ranking(self) -> Ranking:
        """What the channels of the original are worth; a sweep in one step ranks them once."""
        return _ranked(self, self.subject)


@dataclass
class Start:
    """Where all cuts of an aim begin: which blocks go is found once, for that takes longest; what is left is ranked once."""

    workshop: Workshop
    pruned: Pruned

    @cached_property
    def ranking(self) -> Ranking:
        """What the channels are worth that are cut in one step from here."""
        return _ranked(self.workshop, self.pruned.subject) if self.pruned.history.blocks else self.workshop.ranking


def cut_to(workshop: Workshop, aim: Aim) -> tuple[Pruned, SideBySide]:
    """Cut the original until the budgets of `aim` hold, those in ms by the clock.

    Where the clock does not confirm a plan, the limit of the next plan is corrected by what was measured, ATTEMPTS times at
    most, or until no cut could keep it; the network that is then nearest is returned. Raises InvalidBudget, InfeasibleBudget.
    """
    timed = on_time(aim.budgets)
    others = absolute_budgets(workshop, tuple(b for b in aim.budgets if b is not timed))
    if timed is None:
        start = _start(workshop, workshop.subject, others)
        found = _cut(start, others, workshop.job.recipe)
        return _fastest(start, others, (found, workshop.clock.side_by_side(found.module)))
    subject = workshop.timed_subject
    whole = subject.cost.metrics[LATENCY].value
    share = timed.limit if timed.relative else _share(workshop, timed)
    planned_for = replace(timed, limit=share * whole, relative=False, aim=HEADROOM)
    start = _start(workshop, subject, (*others, planned_for))
    correction = 1.0
    tries: list[tuple[Pruned, SideBySide]] = []
    for attempt in range(1, ATTEMPTS + 1):
        budget = replace(planned_for, limit=planned_for.limit / correction)
        try:
            found = _cut(start, (*others, budget), workshop.job.recipe)
        except (InfeasibleBudget, InvalidBudget):
            if not tries:
                raise
            log("no other cut would come nearer: the nearest one is taken")
            break
        times = workshop.clock.side_by_side(found.module)
        tries.append((found, times))
        ms = rounded(times.cut.value)
        log(f"cut {attempt}: {times.ratio:.1%} of the original's time, {ms} ms; the budget is {share:.1%}")
        if CLOSE * share <= times.ratio <= share * (1 + HEADROOM) / 2:
            break
        planned = found.subject.cost.metrics[LATENCY].value / whole
        correction = times.ratio / planned
    kept = [pair for pair in tries if pair[1].ratio <= share * (1 + HEADROOM) / 2]
    return max(kept, key=lambda pair: pair[1].ratio) if kept else min(tries, key=lambda pair: pair[1].ratio)


@contextmanager
def reporting() -> Iterator[Report]:
    """Show what the pass reports as progress bars, one after the other."""
    with ExitStack() as stack:
        current: tuple[str, Bar] | None = None

        def report(label: str, done: int, total: int) -> None:
            nonlocal current
            if current is None or current[0] != label or done == 1:
                stack.close()
                current = label, stack.enter_context(bar(label, total))
            current[1].update(done)

        yield report


def original_cost(workshop: Workshop) -> Cost:
    """What the original costs, its weights as they are stored."""
    cost = workshop.subject.cost
    size = replace(cost.metrics["size_bytes"], value=float(state_bytes(workshop.subject.module)))
    return replace(cost, metrics={**cost.metrics, "size_bytes": size})


def absolute_budgets(workshop: Workshop, budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
    """Absolute budgets. Raises InvalidBudget if the original keeps them all already, or for one that cannot be judged."""
    cost = original_cost(workshop)
    found = tuple(replace(b.resolve(cost), aim=STORED) if b.metric == "size_bytes" else b.resolve(cost) for b in budgets)
    if found and not check(found, cost):
        has = " and ".join(format_value(b.metric, cost.metrics[b.metric].value) for b in found)
        raise InvalidBudget(
            f"budget {' and '.join(b.text for b in found)}: {workshop.job.original.name} has {has}, so nothing is to be cut; "
            "give a smaller one"
        )
    return found


def _share(workshop: Workshop, budget: Budget) -> float:
    """A limit in ms as a share of the original's time. Raises InvalidBudget if the original keeps it."""
    taken = workshop.clock.side_by_side(workshop.job.original.module).original.value
    if taken <= budget.limit:
        raise InvalidBudget(
            f"budget {budget.text!r}: {workshop.job.original.name} takes {rounded(taken)} ms, so nothing is to be cut; "
            "give a smaller one"
        )
    return budget.limit / taken


def _start(workshop: Workshop, subject: Subject, budgets: tuple[Budget, ...]) -> Start:
    recipe = workshop.job.recipe
    if not recipe.depth and recipe.steps == 1:  # else blocks may go, too, or of each step's widths the share `least` is kept
        possible(subject, budgets, recipe)
    with reporting() as report:
        return Start(workshop, shortened(subject, budgets, workshop.job.recipe, workshop.calibration, report))


def _fastest(start: Start, budgets: tuple[Budget, ...], first: tuple[Pruned, SideBySide]) -> tuple[Pruned, SideBySide]:
    """What was cut, or where that is not faster than the original, a cut to widths that kernels take whole, if that is."""
    workshop, best = start.workshop, first
    recipe = workshop.job.recipe
    for block in BLOCKS if not recipe.exact else ():
        if best[1].ratio <= NO_FASTER:
            break
        try:
            found = _cut(start, budgets, replace(recipe, round_to=block, exact=True))
        except InfeasibleBudget:  # no such widths within the budget
            continue
        times = workshop.clock.side_by_side(found.module)
        log(f"not faster ({best[1].ratio:.1%} of the original's time); in multiples of {block} channels: {times.ratio:.1%}")
        best = (found, times) if times.ratio < CLEARLY * best[1].ratio else best
    return best


def _cut(start: Start, budgets: tuple[Budget, ...], recipe: Recipe) -> Pruned:
    workshop = start.workshop
    with reporting() as report:
        so_far = approached(start.pruned, budgets, recipe, workshop.calibration, report)
    if not check(budgets, so_far.subject.cost):
        return so_far
    ranking = start.ranking if recipe.steps == 1 else _ranked(workshop, so_far.subject)
    return cut_down(so_far, ranking, budgets, recipe, workshop.calibration)


def _ranked(workshop: Workshop, subject: Subject) -> Ranking:
    give_freed_memory_back()
    with reporting() as report:
        return ranked(subject, workshop.job.recipe, workshop.calibration, report)
