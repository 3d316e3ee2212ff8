"""The one allocator: of each table the option that costs least accuracy, under a limit, by dynamic programming.

What the options are it does not know: widths of layers, bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# partial choices that are kept at a time; where there are more, one for each interval of cost
MOST_STATES = 2000


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
