"""Allocation by rate and distortion: the least distortion that the budgets allow, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.prune.fitting import settle, uniform
from compress.prune.problem import Keep, Problem

# the costs of neighbouring groups are coupled: they are taken at the widths that were found before, so many times at most
ROUNDS = 6
# partial choices that are kept at a time; where there are more, one for each interval of cost
MOST_STATES = 2000
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


def cheapest(tables: Sequence[tuple[np.ndarray, np.ndarray]], limit: float) -> list[int]:
    """One option of each table of (costs, losses), so that the costs sum up to `limit` at most and the losses to the least.

    The cheapest options if none are that cheap.
    """
    cost, loss = np.zeros(1), np.zeros(1)
    after = np.cumsum([np.min(costs) for costs, _ in tables][::-1])[::-1]
    trail = []
    for place, (costs, losses) in enumerate(tables):
        rest = after[place + 1] if place + 1 < len(tables) else 0.0
        costs_so_far, losses_so_far = (cost[:, None] + costs).ravel(), (loss[:, None] + losses).ravel()
        kept = _front(costs_so_far, losses_so_far, limit - rest)
        trail.append(kept)
        cost, loss = costs_so_far[kept], losses_so_far[kept]
    state, chosen = len(cost) - 1, []
    for kept, (costs, _) in zip(reversed(trail), reversed(tables), strict=True):
        state, option = divmod(int(kept[state]), len(costs))
        chosen.append(option)
    return chosen[::-1]


def _front(cost: np.ndarray, loss: np.ndarray, most: float) -> np.ndarray:
    """Indices of the states that lose less than all cheaper ones, by rising cost: the last one loses least."""
    order = np.lexsort((loss, cost))
    order = order[: max(1, np.searchsorted(cost[order], most, side="right"))]
    best = np.minimum.accumulate(loss[order])
    order = order[np.concatenate([[True], loss[order][1:] < best[:-1]])]
    if len(order) <= MOST_STATES:
        return order
    spread = cost[order] - cost[order[0]]
    bins = (spread / spread[-1] * MOST_STATES).astype(int)
    return order[np.concatenate([bins[1:] != bins[:-1], [True]])]
