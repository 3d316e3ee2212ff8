"""Random search: the baseline that every other searcher has to beat (Li and Talwalkar 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from nas.architecture import Architecture
from nas.search.drawing import draw_unseen
from nas.search.searcher import SequentialSearcher
from nas.trial import Trial


@final
class RandomSearcher(SequentialSearcher):
    """Draws new networks within the budget, independently of the trials; see drawing.py for the distribution."""

    def propose(self, rng: np.random.Generator) -> Architecture | None:
        """Draw a network that was not seen."""
        return draw_unseen(self.problem, rng, self.seen)

    def learn(self, trials: Sequence[Trial]) -> None:
        """Learn nothing."""
