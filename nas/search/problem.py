"""SearchProblem: what a search is asked to find, as a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.architecture import Architecture, SearchSpace
from nas.budget import Budget, Cost, check, excess, format_value, nearest_budget
from nas.errors import InfeasibleBudget, InvalidSetting
from nas.trial import Trial, shortfall

VAL_ACCURACY = "val_accuracy"


@dataclass(frozen=True)
class SearchProblem:
    """A space, what its networks cost and may cost, and what is minimized.

    `cost` needs no weights and answers thousands of times a second. The validation error is always the first objective;
    `objectives` names the costs that are minimized beside it, and may be empty. All randomness of a search comes from
    `seed`. Relative budgets are resolved before they come here.
    """

    space: SearchSpace
    cost: Callable[[Architecture], Cost]
    budgets: tuple[Budget, ...] = ()
    seed: int = 0
    objectives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert not any(b.relative for b in self.budgets), "resolve relative budgets with Budget.resolve first"

    @cached_property
    def smallest_cost(self) -> Cost:
        """Cost of the smallest network of the space."""
        return self.cost(self.space.smallest())

    def check(self) -> None:
        """Make sure that a search can find something.

        Raises InfeasibleBudget if the smallest network breaks a budget, InvalidSetting if an objective is not a known cost.
        """
        if check(self.budgets, self.smallest_cost):
            raise InfeasibleBudget(f"no network of space {self.space.id} keeps {self.limits()}; {self.advice()}")
        self.cost_values(self.smallest_cost)

    def excess(self, arch: Architecture) -> float:
        """Total relative excess of `arch` over the budgets: 0 if it keeps all, infinite if one cannot be judged."""
        return self.excess_of(self.cost(arch))

    def excess_of(self, cost: Cost) -> float:
        """Total relative excess of a known cost."""
        return excess(self.budgets, cost)

    def cost_values(self, cost: Cost) -> list[float]:
        """The costs that are minimized, in the order of `objectives`. Raises InvalidSetting if one was not taken."""
        known = cost.values()
        for name in self.objectives:
            if name not in known:
                raise InvalidSetting(f"objective {name!r} is not a cost that is taken; use some of {', '.join(sorted(known))}")
        return [known[name] for name in self.objectives]

    def objective_values(self, trial: Trial) -> np.ndarray:
        """What is minimized, of a complete trial: `shortfall` in 0..1, then costs; shape (1 + objectives,)."""
        return np.array([shortfall(trial.scores), *self.cost_values(trial.cost)])

    def advice(self) -> str:
        """Say what the smallest network costs and which budgets it would keep."""
        costs = ", ".join(f"{m} {format_value(m, v)}" for m, v in self.smallest_cost.values().items())
        broken = [b for b in self.budgets if (violation := b.check(self.smallest_cost)) and math.isfinite(violation.excess)]
        unknown = [v.text for v in check(self.budgets, self.smallest_cost) if math.isinf(v.excess)]
        nearest = " ".join(nearest_budget(b.metric, self.smallest_cost.values()[b.metric] / b.aim) for b in broken)
        parts = [f"the smallest network has {costs or 'no known cost'}", *unknown]
        return "; ".join([*parts, f"the nearest feasible budget is {nearest}"] if nearest else parts)

    def limits(self) -> str:
        """Name the budgets."""
        return " and ".join(b.text for b in self.budgets) or "no budget"
