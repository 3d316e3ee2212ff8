"""Search problems in milliseconds: the toy space with counted costs, and a wider space with a known accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from contracts.space import raw_assignments
from toy_space import ToySpace

from nas.architecture import Architecture, Choice, SearchSpace
from nas.budget import Budget, Cost, Metric
from nas.cost.counting import count
from nas.errors import TrainingDiverged
from nas.plan import PlanBlock
from nas.search.problem import SearchProblem
from nas.seeding import numpy_rng
from nas.trial import Trial

TOY = ToySpace()


def toy_cost(arch: Architecture) -> Cost:
    return count(TOY.plan(arch))


TOY_COSTS = {a: toy_cost(a) for a in map(TOY.architecture, raw_assignments(TOY))}


def toy_problem(share: float | None = None, seed: int = 0, objectives: tuple[str, ...] = ("macs",)) -> SearchProblem:
    """`share` of the toy networks keep a budget on multiply-adds; None: no budget."""
    costs = sorted(c.value("macs") for c in TOY_COSTS.values())
    budgets = () if share is None else (Budget("limit", "macs", costs[math.ceil(share * len(costs)) - 1]),)
    return SearchProblem(TOY, toy_cost, budgets, seed, objectives)


def within(problem: SearchProblem) -> set[Architecture]:
    """All toy networks that keep the budget, by enumeration."""
    return {a for a, cost in TOY_COSTS.items() if all(cost.value(b.metric) <= b.limit for b in problem.budgets)}


def noise(arch: Architecture) -> float:
    """A fixed number in 0..1 for each network."""
    return float(numpy_rng(0, arch.key).random())


def toy_scores(arch: Architecture) -> dict[str, float]:
    """Evaluate: every eighth network or so cannot be."""
    if noise(arch) < 0.12:
        raise TrainingDiverged("the loss is nan")
    return {"val_accuracy": min(1.0, 0.5 + 0.1 * math.log10(TOY_COSTS[arch].value("macs")) + 0.05 * noise(arch))}


def judged(problem: SearchProblem, number: int, arch: Architecture) -> Trial:
    """A complete or failed trial, as the loop makes it."""
    try:
        return Trial(number, arch, "complete", problem.cost(arch), toy_scores(arch))
    except TrainingDiverged as error:
        return Trial(number, arch, "failed", problem.cost(arch), error=str(error))


@dataclass(frozen=True)
class WideSpace(SearchSpace):
    """Stages of width, depth and one kernel a block; deeper blocks are conditional. Nothing to build."""

    name: ClassVar[str] = "wide"
    version: ClassVar[int] = 1

    stages: int = 4

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        result = []
        for s in range(self.stages):
            result += [Choice(f"width{s}", (1, 2, 3, 4)), Choice(f"depth{s}", (1, 2, 3))]
            for b in range(3):
                when = ((((f"depth{s}", tuple(range(b + 1, 4))),),)) if b else ()
                result.append(Choice(f"kernel{s}.{b}", (3, 5, 7), when))
        return tuple(result)

    @property
    def blocks(self) -> tuple[PlanBlock, ...]:
        return ()

    def network(self, arch):
        raise NotImplementedError

    def cost(self, arch: Architecture) -> Cost:
        """Width times the sum of the kernels, over the stages."""
        values, total = arch.choices, 0.0
        for s in range(self.stages):
            total += values[f"width{s}"] * sum(values.get(f"kernel{s}.{b}", 0) for b in range(3))
        return Cost({"macs": Metric(1e6 * total, "multiply-adds", "test")})

    def scores(self, arch: Architecture) -> dict[str, float]:
        """Every decision has a best option, some pairs want to agree, and there is some noise."""
        rows = self.encode(arch)
        wanted = numpy_rng(0, "wanted").integers(1, 4, size=len(rows))
        match = float((rows == wanted).mean() + 0.5 * (rows[1:] == rows[:-1]).mean())
        return {"val_accuracy": 0.5 + 0.25 * match + 0.02 * noise(arch)}
