"""Allocation by rate and distortion: the least distortion that the budgets allow, by dynamic programming."""

from __future__ import annotations

import numpy as np

from compress.allocate import cheapest
from compress.prune.fitting import settle, uniform
from compress.prune.problem import Keep, Problem

# the costs of neighbouring groups are coupled: they are taken at the widths that were found before, so many times at most
ROUNDS = 6
# sums of parts may miss a limit that they reach exactly
ROUNDING = 1e-9


def rd(problem: Problem) -> Keep:
    """Lose as little as possible, where the losses of the groups add up.

    Xu et al. 2023, "Efficient joint optimization of layer-adaptive weight pruning in deep neural networks". Losses come from
    `curves`, the distortions of the network's output, or else from the scores. Exact where costs add up too, groups are few and
    there is one budget; several budgets are weighted by how tight they are.
    """
    best = anchor = uniform(problem)
    weights = np.full(len(problem.budgets), 1 / len(problem.budgets))
    seen = []
    for _ in range(ROUNDS):
        found = _least_loss(problem, anchor, weights)
        anchor = settle(problem, found)
        best = min(best, anchor, key=problem.loss)
        if found in seen:
            break
        seen.append(found)
        weights = weights * problem.usage(found) ** 2
        weights = weights / np.sum(weights)
    return best


def _least_loss(problem: Problem, anchor: Keep, weights: np.ndarray) -> Keep:
    """The options of least loss whose weighted usage is at most 1, if each group costs what it does among those of `anchor`."""
    used = float(problem.usage(anchor) @ weights)
    tables = []
    for name, options in problem.options.items():
        costs = np.array([problem.usage({**anchor, name: units}) @ weights - used for units in options])
        tables.append((costs, problem.losses[name][list(options)]))
    chosen = cheapest(tables, 1 - used + ROUNDING)
    return {name: options[place] for (name, options), place in zip(problem.options.items(), chosen, strict=True)}
