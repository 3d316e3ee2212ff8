"""From a rule for widths to widths that hit the budgets: search its level, take away what is too much, give back the rest."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from heapq import heapify, heappop, heappush

import numpy as np

from compress.prune.problem import TIMES, Keep, Options, Problem

# a budget is hit where so little of it is left
SLACK = 0.01
HALVINGS = 40
Price = Callable[[Keep], float]
# what a unit of price costs or saves in importance, the group, and the units that it would keep
Step = tuple[float, str, int]


def uniform(problem: Problem) -> Keep:
    """Keep the same share of every group."""

    def keep_at(share: float) -> Keep:
        return {group.name: problem.nearest(group.name, share * group.width) for group in problem.groups}

    return level(problem, keep_at)


def level(problem: Problem, keep_at: Callable[[float], Keep]) -> Keep:
    """The widths of the highest level in 0..1 that keeps all budgets, found by bisection, and settled.

    Many groups may widen at the same level: of those, the most important ones do. `keep_at` gives options of the problem, wider
    ones for higher levels. Raises what Problem.check does.
    """
    problem.check()
    low, high, found, above = 0.0, 1.0, problem.smallest, keep_at(1.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        keep = keep_at(middle)
        if problem.fits(keep):
            low, found = middle, keep
        else:
            high, above = middle, keep
    return settle(problem, fill(problem, found, {name: (units, above[name]) for name, units in found.items()}))


def settle(problem: Problem, keep: Keep, options: Options | None = None) -> Keep:
    """Take units away until all budgets hold, then give back what fits: `options` are the problem's own if none are given.

    Where the usual steps leave more than a hundredth of a budget, finer ones follow, but not for a budget on time: there the
    steps are what is fast.
    """
    if options is not None:
        return fill(problem, shrink(problem, keep, options), options)
    keep = fill(problem, shrink(problem, keep, problem.options), problem.options)
    finest = max(problem.steps.values(), default=1)
    for power in range(1, finest.bit_length()):
        if not _leaves_much(problem, keep):
            break
        keep = fill(problem, keep, problem.finer(2**power))
    return keep


def fill(problem: Problem, keep: Keep, options: Options) -> Keep:
    """Give units back, the most important ones for what they cost first, as long as all budgets hold."""
    keep = dict(keep)
    heap = [step for name in keep if (step := _wider(problem, keep, options[name], name))]
    heapify(heap)
    for _ in range(_bound(options)):
        if not heap:
            break
        _, name, units = heappop(heap)
        # a group that does not fit now will not fit later either
        if problem.fits({**keep, name: units}):
            keep[name] = units
            if step := _wider(problem, keep, options[name], name):
                heappush(heap, step)
    return keep


def shrink(problem: Problem, keep: Keep, options: Options, price: Price | None = None) -> Keep:
    """Take units away, those first that lose least for what they save, until all budgets hold.

    `price` is what is to be saved, by default the excess over the budgets. Ends at the smallest options, whatever they cost.
    """
    price = price or (lambda widths: float(np.sum(np.maximum(problem.usage(widths) - 1, 0))))
    keep = dict(keep)
    if problem.fits(keep):
        return keep
    heap = [step for name in keep if (step := _narrower(problem, keep, options[name], name, price))]
    heapify(heap)
    for _ in range(_bound(options) * (len(keep) + 1)):
        if not heap or problem.fits(keep):
            break
        name = heappop(heap)[1]
        # what a group saves depends on its neighbours, which may have been cut since
        step = _narrower(problem, keep, options[name], name, price)
        if step and (not heap or step <= heap[0]):
            keep[name] = step[2]
            step = _narrower(problem, keep, options[name], name, price)
        if step:
            heappush(heap, step)
    return keep


def _bound(options: Options) -> int:
    return sum(map(len, options.values())) + 1


def _leaves_much(problem: Problem, keep: Keep) -> bool:
    """Tell whether the tightest budget is one that finer steps can hit, and not hit yet."""
    usage = problem.usage(keep)
    tightest = int(np.argmax(usage))
    return bool(usage[tightest] < 1 - SLACK) and problem.budgets[tightest].metric.split("@")[0] not in TIMES


def _wider(problem: Problem, keep: Keep, options: tuple[int, ...], name: str) -> Step | None:
    """The next option of a group upwards, None at its end; the best steps compare as the smallest."""
    place = bisect_right(options, keep[name])
    if place == len(options):
        return None
    units = options[place]
    recovered = float(problem.losses[name][keep[name]] - problem.losses[name][units])
    cost = float(np.max(problem.usage({**keep, name: units}) - problem.usage(keep)))
    return (-recovered / cost if cost > 0 else -math.inf, name, units)


def _narrower(problem: Problem, keep: Keep, options: tuple[int, ...], name: str, price: Price) -> Step | None:
    """The next option of a group downwards, None at its end."""
    place = bisect_left(options, keep[name])
    if place == 0:
        return None
    units = options[place - 1]
    lost = float(problem.losses[name][units] - problem.losses[name][keep[name]])
    saved = price(keep) - price({**keep, name: units})
    return (lost / saved if saved > 0 else math.inf, name, units)
