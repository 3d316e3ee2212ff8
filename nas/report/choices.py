"""What good networks have in common: how often the front takes each option, and how much each choice explains."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.architecture import Option
from nas.report.contents import VAL_ACCURACY, Contents, Network

# with fewer networks shares of the variance are noise, and means of options too
FEWEST, FEWEST_OF_OPTION = 20, 3


@dataclass(frozen=True)
class OptionShare:
    """How often networks that have the choice take this option: of all that were evaluated, and of the front; in 0..1."""

    option: Option
    population: float
    front: float | None


@dataclass(frozen=True)
class ChoiceEffect:
    """One choice: shares of the variance of validation accuracy that it explains alone, and of what the cost leaves of it.

    Shares are epsilon squared (Kelley 1935), which unlike eta squared is zero in the mean for a choice that has no effect;
    None where they are not known. `effect` is the mean accuracy with the best option above that with the worst, in 0..1, of the
    options that at least FEWEST_OF_OPTION networks take.
    """

    name: str
    options: tuple[OptionShare, ...]
    explained: float | None
    at_equal_cost: float | None
    effect: float | None


def choice_effects(contents: Contents) -> list[ChoiceEffect]:
    """The choices in which the evaluated networks differ, those that explain most first; none for fewer than FEWEST."""
    population = [t.network for t in contents.evaluated]
    if len(population) < FEWEST or contents.pruning is not None:
        return []
    accuracy = np.array([n.metrics[VAL_ACCURACY] for n in population])
    leftover = _without_cost(accuracy, population, contents.objectives[0])
    names = list(dict.fromkeys(name for n in population for name in n.choices))
    effects = [_effect(name, (population, contents.front), accuracy, leftover) for name in names]
    return sorted((e for e in effects if len(e.options) > 1), key=lambda e: -max(e.explained or 0.0, e.at_equal_cost or 0.0))


def explained(groups: Sequence[int] | np.ndarray, values: np.ndarray) -> float | None:
    """Share of the variance of `values` (n) that the groups explain, epsilon squared; None where it cannot be told."""
    index, count = np.asarray(groups), len(set(np.asarray(groups).tolist()))
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if count < 2 or len(values) <= count or total <= 0:
        return None
    sizes = np.bincount(index)
    means = np.bincount(index, weights=values) / np.maximum(sizes, 1)
    within = float(((values - means[index]) ** 2).sum())
    return max(0.0, 1 - within / (len(values) - count) * (len(values) - 1) / total)


def _without_cost(accuracy: np.ndarray, networks: Sequence[Network], metric: str) -> np.ndarray | None:
    """What a straight line over the logarithm of the cost leaves of the accuracies; None where a cost is not known."""
    costs = np.array([n.metrics.get(metric, math.nan) for n in networks])
    if not (np.all(costs > 0) and costs.max() > costs.min()):
        return None
    slope, offset = np.polyfit(np.log(costs), accuracy, 1)
    return accuracy - slope * np.log(costs) - offset


def _effect(
    name: str, sides: tuple[Sequence[Network], Sequence[Network]], accuracy: np.ndarray, leftover: np.ndarray | None
) -> ChoiceEffect:
    population, front = sides
    have = [i for i, n in enumerate(population) if name in n.choices]
    taken = [population[i].choices[name] for i in have]
    options = sorted(set(taken), key=lambda v: (isinstance(v, str), v))
    place = {option: i for i, option in enumerate(options)}
    groups = np.array([place[v] for v in taken])
    # one pass over the networks, for a choice may have as many options as there are
    ordered = accuracy[have][np.argsort(groups, kind="stable")]
    taking = np.split(ordered, np.cumsum(np.bincount(groups, minlength=len(options)))[:-1])
    means = [float(values.mean()) for values in taking if len(values) >= FEWEST_OF_OPTION]
    on_front = [n.choices[name] for n in front if name in n.choices]
    all_taken, front_taken = Counter(taken), Counter(on_front)
    shares = tuple(
        OptionShare(v, all_taken[v] / len(taken), front_taken[v] / len(on_front) if on_front else None) for v in options
    )
    equal = explained(groups, leftover[have]) if leftover is not None else None
    return ChoiceEffect(
        name, shares, explained(groups, accuracy[have]), equal, max(means) - min(means) if len(means) > 1 else None
    )
