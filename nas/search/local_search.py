"""Local search (White et al. 2021): look at all networks that differ in one decision, and move on to a better one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from nas.architecture import Architecture
from nas.search.drawing import draw_unseen
from nas.search.problem import SearchProblem
from nas.search.searcher import SequentialSearcher
from nas.seeding import numpy_rng
from nas.trial import Trial, shortfall


@dataclass(frozen=True)
class LocalSearchSettings:
    """The best of `first` networks that are drawn within the budget is where the search begins, and begins again."""

    first: int = 10


@final
class LocalSearchSearcher(SequentialSearcher):
    """Hill climbing for accuracy within the budget: a better neighbour becomes the centre at once.

    A centre that none of its neighbours beats is a local optimum: the search begins again elsewhere, from the best of some
    networks that are drawn. Costs count as limits alone.
    """

    def __init__(self, problem: SearchProblem, settings: LocalSearchSettings | None = None) -> None:
        super().__init__(problem)
        self.settings = settings or LocalSearchSettings()
        self._centre: tuple[float, Architecture] | None = None
        self._around: list[Architecture] = []  # neighbours of the centre that are still to be proposed, the next one last
        self._to_draw = self.settings.first

    def propose(self, rng: np.random.Generator) -> Architecture | None:
        """The next new neighbour of the centre within the budget; a network that is drawn where there is none."""
        if self._to_draw > 0:
            self._to_draw -= 1
            return draw_unseen(self.problem, rng, self.seen)
        while self._around:  # bounded: each round takes one away
            arch = self._around.pop()
            if arch not in self.seen and self.problem.excess(arch) == 0:
                return arch
        self._centre, self._to_draw = None, self.settings.first - 1
        return draw_unseen(self.problem, rng, self.seen)

    def proposed(self, arch: Architecture) -> None:
        """Leave out the neighbours before it, which were seen or over the budget; a drawn one is none of them."""
        if self._to_draw > 0:
            self._to_draw -= 1
        elif arch in self._around:
            del self._around[self._around.index(arch) :]
        else:
            self._around, self._centre, self._to_draw = [], None, self.settings.first - 1

    def learn(self, trials: Sequence[Trial]) -> None:
        """Move on to a network that is better than the centre."""
        for trial in trials:
            if trial.state != "complete" or self.problem.excess_of(trial.cost) > 0:
                continue
            value = shortfall(trial.scores)
            if self._centre is None or value < self._centre[0]:
                self._centre = (value, trial.architecture)
                around = list(self.problem.space.neighbours(trial.architecture))
                order = numpy_rng(self.problem.seed, "neighbours", trial.architecture.key).permutation(len(around))
                self._around = [around[int(i)] for i in order]
