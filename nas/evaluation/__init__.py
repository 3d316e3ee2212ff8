"""Evaluators: how good a network is. Scores are fractions in 0..1; costs are not scores, see nas/cost."""

from collections.abc import Mapping
from typing import Protocol

from nas.architecture import Architecture


class Evaluator(Protocol):
    """Callable: architecture -> scores by name; `val_accuracy`, in 0..1, is always one of them.

    Equal calls give equal scores: whatever is random in an evaluation has a fixed seed. A subclass of NasError says that
    this one network could not be evaluated; the search records it and goes on.
    """

    def __call__(self, arch: Architecture) -> Mapping[str, float]:
        """Evaluate one network."""
