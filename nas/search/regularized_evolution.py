"""Regularized evolution (Real et al. 2019): the oldest network dies, not the worst one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from nas.architecture import Architecture
from nas.search.drawing import draw_unseen
from nas.search.problem import SearchProblem
from nas.search.searcher import SequentialSearcher
from nas.trial import Trial, shortfall


@dataclass(frozen=True)
class RegularizedEvolutionSettings:
    """A child is the best of `sample_size` members of the population with one decision redrawn.

    The published search has a population of 100 and samples of 25 for 20,000 evaluations; the defaults are for some hundred.
    `attempts` bounds how often a child that was seen or breaks the budget is bred again.
    """

    population_size: int = 30
    sample_size: int = 10
    attempts: int = 64


@final
class RegularizedEvolutionSearcher(SequentialSearcher):
    """Aging evolution for accuracy within the budget. The first `population_size` networks are drawn within the budget.

    The population are the last `population_size` networks that were evaluated. Costs count as limits alone.
    """

    def __init__(self, problem: SearchProblem, settings: RegularizedEvolutionSettings | None = None) -> None:
        super().__init__(problem)
        self.settings = settings or RegularizedEvolutionSettings()
        self.population: deque[tuple[float, Architecture]] = deque(maxlen=self.settings.population_size)

    def propose(self, rng: np.random.Generator) -> Architecture | None:
        """Draw the first networks; then mutate the best of a sample, and draw where no child is new and within the budget."""
        if self.population and len(self.seen) >= self.settings.population_size:
            for _ in range(self.settings.attempts):
                child = self.problem.space.mutate(self._parent(rng), rng, 0.0)
                if child not in self.seen and self.problem.excess(child) == 0:
                    return child
        return draw_unseen(self.problem, rng, self.seen)

    def learn(self, trials: Sequence[Trial]) -> None:
        """Add the evaluated networks that meet the budget; each replaces the oldest one."""
        for trial in trials:
            if trial.state == "complete" and self.problem.excess_of(trial.cost) == 0:
                self.population.append((shortfall(trial.scores), trial.architecture))

    def _parent(self, rng: np.random.Generator) -> Architecture:
        size = min(self.settings.sample_size, len(self.population))
        sample = rng.choice(len(self.population), size=size, replace=False)
        return min((self.population[int(i)] for i in sample), key=lambda member: member[0])[1]
