"""Evaluator that looks scores up: benchmarks with known results, and tests in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping

from nas.architecture import Architecture
from nas.errors import InvalidArchitecture


class TabularEvaluator:
    """Evaluator: architecture -> the scores that a table holds under its key."""

    def __init__(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        self.scores = scores

    def __call__(self, arch: Architecture) -> Mapping[str, float]:
        """Look `arch` up. Raises InvalidArchitecture if the table does not have it."""
        if arch.key not in self.scores:
            raise InvalidArchitecture(f"the table of {len(self.scores)} networks has no {arch.key} of space {arch.space}")
        return self.scores[arch.key]
