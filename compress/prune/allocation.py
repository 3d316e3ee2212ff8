"""How many units each group of a network keeps so that it hits its budgets: one plain function a method, in one visible dict.

All of them hit the budgets to within a hundredth where the widths allow it, see fitting.py. Which units go, the scores say.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from compress.prune.allocation_latency import latency
from compress.prune.allocation_rd import rd
from compress.prune.fitting import level, uniform
from compress.prune.groups import Group
from compress.prune.problem import Keep, Problem


def one_threshold(problem: Problem) -> Keep:
    """Keep the units whose scores, by the mean of their group, are above one threshold in the whole network."""
    return _ranked(problem, lambda group: None)


def isomorphic(problem: Problem) -> Keep:
    """Keep the same share of each kind of group, by one threshold among the groups of that kind.

    Groups are of one kind if they cut the same operations in the same order: scores of others do not compare (Fang et al.
    2024, "Isomorphic pruning for vision models").
    """

    def kind(group: Group) -> Hashable:
        layers = problem.widths.layers_of(group)
        return tuple((layer.op, layer.groups == layer.in_channels > 1, side) for layer, side in layers)

    return _ranked(problem, kind)


def sensitivity(problem: Problem) -> Keep:
    """Keep as few units of each group as lose no more than all others do: water that rises to one level.

    What a group loses is read from `curves`, the loss of the network when that group alone is cut (Li et al. 2017, "Pruning
    filters for efficient ConvNets"); without them it is the share of the group's importance.
    """
    losses = problem.losses
    if not problem.curves:
        losses = {name: lost / (lost[0] or 1.0) for name, lost in losses.items()}
    most = max((lost[0] for lost in losses.values()), default=0.0)

    def keep_at(height: float) -> Keep:
        allowed = (1 - height) * most
        return {name: next(k for k in problem.options[name] if lost[k] <= allowed) for name, lost in losses.items()}

    return level(problem, keep_at)


def precrop(problem: Problem) -> Keep:
    """Keep more of a group, the more salient its units are on average, whichever they are.

    `scores` are saliences of the weights of the network at initialization, summed over a unit, as SynFlow gives them. The
    share of the weights that a layer should keep is proportional to them, and its width to the root of that, as weights have
    channels on two sides (Cai et al. 2022, "Structured pruning is all you need for pruning CNNs at initialization").
    """
    means = {group.name: max(float(np.mean(problem.scores[group.name])), 0.0) for group in problem.groups}
    largest = max(means.values(), default=0.0) or 1.0
    shares = {name: max(mean / largest, 1e-12) for name, mean in means.items()}

    def keep_at(height: float) -> Keep:
        # at height 1 all groups are whole; the scale is that of the root, where widths change evenly
        flow = height / np.sqrt(min(shares.values()))
        widths = {group.name: min(1.0, flow * np.sqrt(shares[group.name])) * group.width for group in problem.groups}
        return {name: problem.nearest(name, units) for name, units in widths.items()}

    return level(problem, keep_at)


ALLOCATIONS: dict[str, Callable[[Problem], Keep]] = {
    "uniform": uniform,
    "global": one_threshold,
    "isomorphic": isomorphic,
    "rd": rd,
    "sensitivity": sensitivity,
    "precrop": precrop,
    "latency": latency,
}


def _ranked(problem: Problem, kind: Callable[[Group], Hashable]) -> Keep:
    """Keep the same share of all units of a kind, those of the highest scores; of equal ones the same share in each group."""
    kinds = {group.name: kind(group) for group in problem.groups}
    pools: dict[Hashable, list[np.ndarray]] = {}
    for name, group_kind in kinds.items():
        pools.setdefault(group_kind, []).append(problem.normalized[name])
    ranked = {group_kind: np.sort(np.concatenate(pool)) for group_kind, pool in pools.items()}

    def keep_at(share: float) -> Keep:
        thresholds = {group_kind: _threshold(scores, share * len(scores)) for group_kind, scores in ranked.items()}
        keep = {}
        for name, group_kind in kinds.items():
            (lowest, part), scores = thresholds[group_kind], problem.normalized[name]
            keep[name] = problem.nearest(name, np.sum(scores > lowest) + part * np.sum(scores == lowest))
        return keep

    return level(problem, keep_at)


def _threshold(ranked: np.ndarray, wanted: float) -> tuple[float, float]:
    """The lowest of the `wanted` highest scores of an ascending array, and which part of those that equal it are wanted."""
    lowest = ranked[min(len(ranked) - 1, int(len(ranked) - wanted))]
    below, up_to = np.searchsorted(ranked, lowest, "left"), np.searchsorted(ranked, lowest, "right")
    return lowest, (wanted - (len(ranked) - up_to)) / (up_to - below)
