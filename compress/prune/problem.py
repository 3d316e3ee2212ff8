"""Problem: what an allocation is asked to find, as a value: how many units each group keeps so that all budgets hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from compress.prune.groups import OUT, Group
from compress.prune.widths import WidthModel
from nas.budget import Budget, format_value, nearest_budget
from nas.errors import InfeasibleBudget, InvalidBudget, InvalidSetting

Keep = dict[str, int]
Options = Mapping[str, tuple[int, ...]]
# a group is cut in so many steps: fewer are too coarse to hit a budget, more are not worth their time
FEWEST_STEPS, MOST_STEPS = 8, 32
TIMES = ("latency_ms", "energy_mj")


@dataclass(frozen=True)
class Problem:
    """Groups that may be cut, what their units are worth, and what the network may cost afterwards.

    `scores` are the importances of the units of each group, shape (width,). Groups of `widths` that are not in `groups` stay
    whole. Budgets are absolute. Channels are kept in multiples of `round_to`, where groups are wide enough for that and
    budgets are hit with it, or always if that is `exact`: then a group that has no such multiple stays whole. Of every group
    at least the share `least` is kept. `curves` are distortions or losses of the network by the units that one group
    keeps, where they were measured: of all groups or of none; without them, what is lost is the importance of the units.
    """

    groups: tuple[Group, ...]
    scores: Mapping[str, np.ndarray]
    widths: WidthModel
    budgets: tuple[Budget, ...]
    round_to: int = 8
    least: float = 0.1
    exact: bool = False
    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    _known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises InvalidSetting if something of the above does not hold."""
        assert not any(b.relative for b in self.budgets), "resolve relative budgets with Budget.resolve first"
        if self.round_to < 1 or not 0 < self.least <= 1:
            raise InvalidSetting(f"round_to {self.round_to} and least {self.least} given; use 1 or more, and a share in (0, 1]")
        for group in self.groups:
            scores = self.scores.get(group.name)
            if scores is None or np.shape(scores) != (group.width,) or not np.all(np.isfinite(scores)):
                found = "none" if scores is None else f"{np.shape(scores)}, {np.sum(~np.isfinite(scores))} of them not finite"
                raise InvalidSetting(f"group {group.name!r} has {group.width} units; give a finite score for each, not {found}")
        missing = [group.name for group in self.groups if not self.curves.get(group.name)]
        if self.curves and missing:
            raise InvalidSetting(f"there is no curve of {', '.join(missing)}; give curves of all groups or of none")

    def check(self) -> None:
        """Make sure that there is something to find.

        Raises InvalidBudget for no budget, for a limit above what the network costs, and for one that cannot be judged;
        InfeasibleBudget if the smallest cut breaks one.
        """
        if not self.budgets:
            raise InvalidBudget("no budget was given; say what the network may cost, for example --budget 50%")
        for budget, value in self._judged({}):
            if value < budget.limit:
                raise InvalidBudget(
                    f"budget {budget.text!r} allows {format_value(budget.metric, budget.limit)}, and the network has "
                    f"{format_value(budget.metric, value)}: nothing is to be cut; give a smaller one"
                )
        broken = [(budget, value) for budget, value in self._judged(self.smallest) if value > budget.limit * budget.aim]
        if broken:
            has = " and ".join(format_value(b.metric, value) for b, value in broken)
            nearest = " ".join(nearest_budget(b.metric, value / b.aim) for b, value in broken)
            steps = f" in multiples of {self.round_to} channels" if self.exact and self.round_to > 1 else ""
            raise InfeasibleBudget(
                f"no cut keeps {' and '.join(b.text for b, _ in broken)}{steps}: the smallest, {self.least:.0%} of each of "
                f"{len(self.groups)} groups, has {has}; the nearest feasible budget is {nearest}"
                f"{', or give a smaller --round-to' if steps else ''}"
            )

    def _judged(self, keep: Mapping[str, int]) -> list[tuple[Budget, float]]:
        """The budgets and what a cut network has of each. Raises InvalidBudget if that is not known."""
        cost = self.widths.cost(keep, [budget.metric for budget in self.budgets])
        for budget in self.budgets:
            violation = budget.check(cost)
            if violation and math.isinf(violation.excess):
                remedy = "compute it by operations that docs/costs.md lists" if cost.uncounted else "give one on what is known"
                raise InvalidBudget(f"budget {budget.text!r} cannot be judged: {violation.text}; {remedy}")
        return [(budget, cost.metrics[budget.metric].value) for budget in self.budgets]

    # -- what may be kept

    @cached_property
    def options(self) -> dict[str, tuple[int, ...]]:
        """The numbers of units that a group may keep, ascending; the last is its width."""
        return {group.name: self._multiples(group, self.steps[group.name]) for group in self.groups}

    @cached_property
    def steps(self) -> dict[str, int]:
        """Units by which a group is cut."""
        return {group.name: self._step(group) for group in self.groups}

    def finer(self, divisor: int) -> dict[str, tuple[int, ...]]:
        """Options with steps of that part of the usual ones, where a group can be cut so finely."""
        found = {}
        for group in self.groups:
            least = self._exactly(group) if self.exact else group.multiple_of
            step = self.steps[group.name] // least
            found[group.name] = self._multiples(group, step // math.gcd(step, divisor) * least)
        return found

    @cached_property
    def smallest(self) -> Keep:
        """The fewest units of every group."""
        return {name: options[0] for name, options in self.options.items()}

    @cached_property
    def whole(self) -> Keep:
        """All units of every group."""
        return {group.name: group.width for group in self.groups}

    def nearest(self, name: str, units: float) -> int:
        """The option of a group that is next to a number of units."""
        return min(self.options[name], key=lambda option: (abs(option - units), option))

    def _step(self, group: Group) -> int:
        """Steps of `round_to` channels, smaller in a narrow group and larger in a very wide one."""
        step = self._exactly(group) if self.exact else self._about(group)
        while step * MOST_STEPS < group.width:
            step *= 2
        return step

    def _about(self, group: Group) -> int:
        channels = next(len(member.units[0]) for member in group.members if member.side == OUT)
        units = self.round_to // math.gcd(self.round_to, channels)
        while units > 1 and math.lcm(units, group.multiple_of) * FEWEST_STEPS > group.width:
            units //= next(p for p in range(2, units + 1) if units % p == 0)
        return math.lcm(units, group.multiple_of)

    def _exactly(self, group: Group) -> int:
        """The fewest units whose channels are a multiple of `round_to` in every layer that writes them."""
        channels = {len(member.units[0]) for member in group.members if member.side == OUT}
        return math.lcm(group.multiple_of, *(self.round_to // math.gcd(self.round_to, number) for number in channels))

    def _multiples(self, group: Group, step: int) -> tuple[int, ...]:
        first = step * max(1, math.ceil(self.least * group.width / step - 1e-9))
        return (*range(first, group.width, step), group.width)

    # -- what it costs

    def usage(self, keep: Mapping[str, int]) -> np.ndarray:
        """What part of each limit is used, shape (budgets,): all budgets hold where none is above 1."""
        key = tuple(keep[group.name] for group in self.groups)
        if key not in self._known:
            cost = self.widths.cost(keep, [budget.metric for budget in self.budgets])
            values = [cost.value(budget.metric) for budget in self.budgets]
            used = [math.inf if v is None else v / (b.limit * b.aim) for v, b in zip(values, self.budgets, strict=True)]
            self._known[key] = np.nan_to_num(np.array(used), nan=math.inf, posinf=math.inf)
        return self._known[key]

    def fits(self, keep: Mapping[str, int]) -> bool:
        """Tell whether all budgets hold."""
        return bool(np.all(self.usage(keep) <= 1))

    # -- what is lost

    @cached_property
    def normalized(self) -> dict[str, np.ndarray]:
        """Scores by the mean of their group, so that groups compare: scales of layers differ by orders of magnitude."""
        scores = {group.name: np.asarray(self.scores[group.name], dtype=float) for group in self.groups}
        return {name: values / (np.mean(np.abs(values)) or 1.0) for name, values in scores.items()}

    @cached_property
    def losses(self) -> dict[str, np.ndarray]:
        """What a group loses by the units that it keeps, 0 to its width: shape (width + 1,), never rising, 0 at the end."""
        return {group.name: self._losses(group) for group in self.groups}

    def loss(self, keep: Mapping[str, int]) -> float:
        """What all groups lose together: losses are taken to add up (Xu et al. 2023)."""
        return math.fsum(self.losses[name][units] for name, units in keep.items())

    def _losses(self, group: Group) -> np.ndarray:
        if curve := self.curves.get(group.name):
            known = sorted({*curve, group.width})
            lost = [curve.get(units, 0.0) - curve.get(group.width, 0.0) for units in known]
            if 0 < known[0] < group.width:  # a curve that was not measured to its end goes on as it began
                slope = (lost[0] - lost[1]) / (known[1] - known[0])
                known, lost = [0, *known], [lost[0] + slope * known[0], *lost]
            losses = np.interp(np.arange(group.width + 1), known, lost)
        else:
            losses = np.concatenate([[0.0], np.cumsum(np.sort(self.normalized[group.name]))])[::-1]
        return np.maximum.accumulate(losses[::-1])[::-1]
