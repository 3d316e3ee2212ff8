"""The spaces, and how one is sized to a budget and to the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nas.architecture import SearchSpace
from nas.budget import Budget
from nas.cost.counting import count
from search_spaces import convnet, fbnet, mobilenet, resnet
from search_spaces.staged import DataShape, Macro

LARGEST_TO_BUDGET = 2.0
SMALLEST_TO_BUDGET = 0.25
# of the budget: what the smallest network of a supernet may cost where no space has a smaller one
MOST_OF_SMALLEST = 0.6
# below these base widths a macro-architecture is too deep for its budget and a smaller one takes over
LEAST_WIDTH = 0.6
MOST_WIDTH = 8.0


@dataclass(frozen=True)
class Family:
    """A kind of space: its class, its macro-architectures from large to small, its options, and how one is made.

    `spare` are macro-architectures for budgets that none of the others suits.
    """

    space: type[SearchSpace]
    macros: tuple[Macro, ...]
    options: type[Any]
    make: Callable[[DataShape, Macro, float, Any], SearchSpace]
    spare: tuple[Macro, ...] = ()


SPACES: dict[str, Family] = {
    "mobilenet": Family(mobilenet.MobileNetSpace, mobilenet.MACROS, mobilenet.MobileNetOptions, mobilenet.make),
    "fbnet": Family(fbnet.FBNetSpace, fbnet.MACROS, fbnet.FBNetOptions, fbnet.make),
    "convnet": Family(convnet.ConvNetSpace, convnet.MACROS, convnet.ConvNetOptions, convnet.make),
    "resnet": Family(resnet.ResNetSpace, resnet.MACROS, resnet.ResNetOptions, resnet.make),
}


def sized(family: Family, shape: DataShape, budgets: Sequence[Budget], options: Any) -> SearchSpace:  # noqa: ANN401
    """Build the space whose largest network costs about twice the tightest budget and whose smallest at most a quarter.

    Budgets that a plan cannot tell (latency, energy) do not size it. The largest macro-architecture that still has
    reasonable widths wins; the smallest one takes what no other can, unless its networks are too much alike in cost.
    """
    known = [b for b in budgets if not b.relative and b.metric in count_metrics(family, shape, options)]
    if not known:
        return family.make(shape, family.macros[0], 1.0, options)
    tried: list[tuple[float, SearchSpace]] = []
    for macro in family.macros:
        width, space = fitted(family, macro, (shape, known, options), LARGEST_TO_BUDGET)
        tried.append((_ratio(space, known, largest=False), space))
        if width >= LEAST_WIDTH and tried[-1][0] <= SMALLEST_TO_BUDGET:
            return space
    share, space = tried[-1] if tried[-1][0] <= MOST_OF_SMALLEST else min(tried, key=lambda found: found[0])
    # the largest network at the budget itself where the smallest is not clearly within it
    return space if share <= 1 else fitted(family, family.macros[-1], (shape, known, options), 1.0)[1]


def fitted(
    family: Family, macro: Macro, wanted: tuple[DataShape, Sequence[Budget], Any], ratio: float
) -> tuple[float, SearchSpace]:
    """The widest space of one macro-architecture whose largest network costs at most `ratio` times the tightest budget.

    Returns its width multiplier, too. `wanted` are the shape of the data, the budgets, and the options.
    """
    shape, budgets, options = wanted
    width = _widest(lambda w: _ratio(family.make(shape, macro, w, options), budgets, largest=True), ratio)
    return width, family.make(shape, macro, width, options)


def count_metrics(family: Family, shape: DataShape, options: Any) -> frozenset[str]:  # noqa: ANN401
    """Names of the metrics that a plan of this family tells."""
    space = family.make(shape, family.macros[-1], LEAST_WIDTH, options)
    return frozenset(count(space.plan(space.smallest())).metrics)


def _ratio(space: SearchSpace, budgets: Sequence[Budget], largest: bool) -> float:
    """Cost of the largest or smallest network over its limit, in the tightest budget."""
    values = count(space.plan(space.largest() if largest else space.smallest())).values()
    return max(values[b.metric] / b.limit for b in budgets)


def _widest(ratio: Callable[[float], float], most: float) -> float:
    """Widest multiplier whose ratio is at most `most`, by bisection over steps of 2.5%."""
    low, high = -100, 84  # 1.025 ** 84 is MOST_WIDTH
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if ratio(1.025**middle) <= most else (low, middle - 1)
    return min(MOST_WIDTH, 1.025**low)
