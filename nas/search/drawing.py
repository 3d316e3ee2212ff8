"""Drawing architectures that keep the budget, when most of a space does not."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Set
from dataclasses import replace

import numpy as np

from nas.architecture import Architecture, Option, SearchSpace
from nas.budget import Budget, excess
from nas.search.problem import SearchProblem

UNIFORM_DRAWS = 16
UNSEEN_DRAWS = 32
REACH = 5000


def draw_feasible(problem: SearchProblem, rng: np.random.Generator) -> Architecture:
    """Draw a network that keeps the budget.

    Distribution: every active decision uniformly, redrawn while over the budget, as the early-exit population initialization
    of EEEA-Net (Termritthikun et al. 2021), but UNIFORM_DRAWS times at most. Then the last draw walks down: a random
    decision steps back by one option, again and again. The walk gives its last network within the budget that is above a
    target, or its first below. The target lies sqrt(u) of the way, u uniform in 0..1, from the cost of the smallest network
    to the limit: three quarters of the walks aim at the upper half of the range.

    Raises InfeasibleBudget if the smallest network breaks the budget.
    """
    problem.check()
    arch = problem.space.sample(rng)
    for _ in range(UNIFORM_DRAWS - 1):
        if problem.excess(arch) == 0:
            return arch
        arch = problem.space.sample(rng)
    return _walk_down(problem, arch, rng)


def draw_unseen(problem: SearchProblem, rng: np.random.Generator, seen: Set[Architecture]) -> Architecture | None:
    """Draw a network that keeps the budget and is not in `seen`; None if none was found.

    `draw_feasible` until it gives a new network, UNSEEN_DRAWS times at most; then uniformly from the unseen networks among
    the `reachable` ones. Small spaces are so exhausted exactly.
    """
    for _ in range(UNSEEN_DRAWS):
        arch = draw_feasible(problem, rng)
        if arch not in seen:
            return arch
    unseen = [a for a in reachable(problem) if a not in seen]
    return unseen[int(rng.integers(len(unseen)))] if unseen else None


def reachable(problem: SearchProblem, limit: int = REACH) -> list[Architecture]:
    """Networks within the budget that single decisions lead to from the smallest one, nearest first.

    These are all networks that keep the budget, if each can be shrunk within it, until `limit` networks were looked at.
    """
    start = problem.space.smallest()
    visited, found, queue = {start}, [start], deque([start])
    while queue and len(visited) < limit:  # bounded: each round takes one from the queue, which gets each network once
        for arch in problem.space.neighbours(queue.popleft()):
            if arch not in visited:
                visited.add(arch)
                if problem.excess(arch) == 0:
                    found.append(arch)
                    queue.append(arch)
    return found


def _walk_down(problem: SearchProblem, arch: Architecture, rng: np.random.Generator) -> Architecture:
    share = math.sqrt(rng.random())
    targets = tuple(_between(problem, budget, share) for budget in problem.budgets)
    # every step lowers the sum of the option indices (newly active decisions take their first option),
    # so that the walk ends in the smallest network at the latest
    kept = None
    for _ in range(sum(len(c.options) for c in problem.space.choices)):
        cost = problem.cost(arch)
        if excess(targets, cost) == 0:
            return arch if kept is None else kept
        if problem.excess_of(cost) == 0:
            kept = arch
        arch = _step_down(problem.space, arch, rng)
    return problem.space.smallest() if kept is None else kept


def _between(problem: SearchProblem, budget: Budget, share: float) -> Budget:
    smallest = problem.smallest_cost.values()[budget.metric]
    return replace(budget, limit=min(budget.limit, smallest + share * (budget.limit - smallest)))


def _step_down(space: SearchSpace, arch: Architecture, rng: np.random.Generator) -> Architecture:
    """Set one random decision to the option before its own; the smallest network stays as it is."""
    options = {c.name: c.options for c in space.choices}
    lowerable = [n for n, value in arch.choices.items() if value != options[n][0]]
    if not lowerable:
        return arch
    name = lowerable[int(rng.integers(len(lowerable)))]
    lower = options[name][options[name].index(arch.choices[name]) - 1]
    values: dict[str, Option] = {}
    for choice in space.choices:
        if choice.is_active(values):
            values[choice.name] = lower if choice.name == name else arch.choices.get(choice.name, choice.options[0])
    return space.architecture(values)
