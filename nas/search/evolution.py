"""NSGA-II (Deb et al. 2002) on architectures, with constraint domination by the excess over the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from nas.architecture import Architecture
from nas.search.drawing import draw_unseen
from nas.search.problem import SearchProblem
from nas.search.searcher import SequentialSearcher
from nas.trial import Trial, fronts


@dataclass(frozen=True)
class EvolutionSettings:
    """A child has one decision redrawn, and each other one with probability `mutation_rate`.

    `attempts` bounds how often a child that was seen or breaks the budget is bred again. The defaults are for some hundred
    evaluations: on NAS-Bench-201 and on synthetic spaces of 50 conditional decisions, populations of 10 and 20 with a single
    decision redrawn beat larger ones and more mutation, and 20 hold a fuller front.
    """

    population_size: int = 20
    crossover_rate: float = 0.9
    mutation_rate: float = 0.0
    attempts: int = 64


@dataclass(frozen=True)
class Individual:
    """A trial as selection sees it; `values` count only if `excess` is 0."""

    architecture: Architecture
    values: np.ndarray
    excess: float


@dataclass(frozen=True)
class Population:
    """Individuals with the front that they lie in (0 is best) and their crowding distance in it."""

    members: tuple[Individual, ...] = ()
    rank: tuple[int, ...] = ()
    distance: tuple[float, ...] = ()

    def tournament(self, rng: np.random.Generator) -> Architecture:
        """Binary tournament: the better front wins, then the emptier neighbourhood."""
        a, b = (int(i) for i in rng.integers(len(self.members), size=2))
        winner = min(a, b, key=lambda i: (self.rank[i], -self.distance[i]))
        return self.members[winner].architecture


@final
class EvolutionSearcher(SequentialSearcher):
    """NSGA-II. The first `population_size` networks are drawn within the budget (drawing.py), as EEEA-Net does.

    The survivors are selected at each tell from the population and the trials told. Asking and telling `population_size`
    at a time is therefore NSGA-II by generations; one at a time it is its steady-state form (Durillo et al. 2009),
    which needs fewer evaluations.
    """

    def __init__(self, problem: SearchProblem, settings: EvolutionSettings | None = None) -> None:
        super().__init__(problem)
        self.settings = settings or EvolutionSettings()
        self.population = Population()

    def propose(self, rng: np.random.Generator) -> Architecture | None:
        """Draw the first networks; then breed children, and draw where none is new and within the budget."""
        if self.population.members and len(self.seen) >= self.settings.population_size:
            for _ in range(self.settings.attempts):
                child = self._breed(rng)
                if child not in self.seen and self.problem.excess(child) == 0:
                    return child
        return draw_unseen(self.problem, rng, self.seen)

    def learn(self, trials: Sequence[Trial]) -> None:
        """Let the best of the population and the new trials survive; failed trials do not take part."""
        new = [_individual(self.problem, t) for t in trials if t.state != "failed"]
        self.population = survivors([*self.population.members, *new], self.settings.population_size)

    def _breed(self, rng: np.random.Generator) -> Architecture:
        space, child = self.problem.space, self.population.tournament(rng)
        if rng.random() < self.settings.crossover_rate:
            child = space.crossover(child, self.population.tournament(rng), rng)
        return space.mutate(child, rng, self.settings.mutation_rate)


def survivors(pool: Sequence[Individual], size: int) -> Population:
    """Select the best `size` of a pool: whole fronts, then the least crowded of the front that does not fit."""
    members: list[Individual] = []
    rank: list[int] = []
    distance: list[float] = []
    for number, front in enumerate(constrained_fronts(pool)):
        crowding = crowding_distance(np.array([pool[i].values for i in front]))
        for j in np.argsort(-crowding, kind="stable")[: size - len(members)]:
            members.append(pool[front[j]])
            rank.append(number)
            distance.append(float(crowding[j]))
    return Population(tuple(members), tuple(rank), tuple(distance))


def constrained_fronts(pool: Sequence[Individual]) -> list[list[int]]:
    """Non-dominated sorting where what keeps the budget beats what does not, and a smaller excess beats a larger one."""
    feasible = [i for i, x in enumerate(pool) if x.excess == 0]
    values = np.array([pool[i].values for i in feasible])
    ranked = [[feasible[i] for i in front] for front in fronts(values)] if feasible else []
    levels = sorted({x.excess for x in pool if x.excess > 0})
    return ranked + [[i for i, x in enumerate(pool) if x.excess == level] for level in levels]


def crowding_distance(points: np.ndarray) -> np.ndarray:
    """Crowding distance of each of `points` (n, objectives): shape (n,), infinite for the ends of each objective.

    An objective that is equal everywhere does not count.
    """
    distance = np.zeros(len(points))
    for column in points.T:
        spread = column.max() - column.min()
        if spread > 0:
            order = np.argsort(column, kind="stable")
            gaps = (column[order[2:]] - column[order[:-2]]) / spread
            distance[order[1:-1]] += gaps
            distance[order[[0, -1]]] = np.inf
    return distance


def _individual(problem: SearchProblem, trial: Trial) -> Individual:
    complete = trial.state == "complete"
    values = problem.objective_values(trial) if complete else np.zeros(1 + len(problem.objectives))
    return Individual(trial.architecture, values, problem.excess_of(trial.cost))
