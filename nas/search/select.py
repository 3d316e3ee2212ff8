"""What a search delivers: the best network and the Pareto front of its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.accuracy import standard_error
from nas.errors import InfeasibleBudget, NasError
from nas.search.problem import VAL_ACCURACY, SearchProblem
from nas.trial import Trial, pareto_front, shortfall

CLEARLY_LESS = 0.9


def complete_trials(trials: Sequence[Trial], problem: SearchProblem) -> list[Trial]:
    """Trials that were evaluated and keep the budget, in order.

    Raises InfeasibleBudget if none keeps the budget, NasError if some do but none was evaluated.
    """
    feasible = [t for t in trials if t.state != "infeasible" and problem.excess_of(t.cost) == 0]
    complete = [t for t in feasible if t.state == "complete"]
    if complete:
        return complete
    if feasible:
        raise NasError(f"none of {len(feasible)} networks could be evaluated; the last one: {feasible[-1].error}")
    raise InfeasibleBudget(f"none of {len(trials)} networks keeps {problem.limits()}; {problem.advice()}")


def evaluated(trials: Sequence[Trial]) -> list[Trial]:
    """Trials whose accuracy is known, whatever they cost."""
    return [t for t in trials if t.state == "complete"]


def least_excess(trials: Sequence[Trial], problem: SearchProblem) -> list[Trial]:
    """Evaluated networks by how far they are over the budgets, the nearest first."""
    return sorted(evaluated(trials), key=lambda t: (problem.excess_of(t.cost), t.number))


def best(trials: Sequence[Trial], problem: SearchProblem) -> Trial:
    """The network with the highest validation accuracy; of equal ones that with the lowest loss, the cheapest, the earliest.

    It lies on the front, which has the same order of merit.

    Costs are compared in the order of the objectives, then of the budgets. Raises as `complete_trials`.
    """
    metrics = (*problem.objectives, *(b.metric for b in problem.budgets), "macs", "params")

    def order(trial: Trial) -> tuple[float, ...]:
        costs = trial.cost.values()
        return (shortfall(trial.scores), *(costs.get(m, math.inf) for m in metrics), trial.number)

    return min(complete_trials(trials, problem), key=order)


def cheaper(trials: Sequence[Trial], problem: SearchProblem, images: int) -> Trial | None:
    """The cheapest network that is as good as the best one within a standard error, if it costs clearly less.

    Less by the first objective, or multiply-adds where there is none; `images` are those of the validation split.
    """
    try:
        chosen, metric = best(trials, problem), (*problem.objectives, "macs")[0]
    except InfeasibleBudget:  # what is delivered misses the budget, and its check says so
        return None
    accuracy, cost = chosen.scores[VAL_ACCURACY], chosen.cost.values().get(metric, math.nan)
    least = accuracy - standard_error(accuracy, images)
    known = [t for t in complete_trials(trials, problem) if t.scores[VAL_ACCURACY] >= least and metric in t.cost.values()]
    cheapest = min(known, key=lambda t: (t.cost.values()[metric], shortfall(t.scores)), default=chosen)
    return cheapest if cheapest.cost.values().get(metric, math.inf) <= CLEARLY_LESS * cost else None


def front(trials: Sequence[Trial], problem: SearchProblem) -> list[Trial]:
    """The Pareto front by validation error and objectives, ordered by the last objective. Raises as `complete_trials`."""
    complete = complete_trials(trials, problem)
    return [complete[i] for i in pareto_front(np.array([problem.objective_values(t) for t in complete]))]
