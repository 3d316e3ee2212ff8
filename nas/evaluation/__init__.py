"""Evaluators: how good a network is. Scores are fractions in 0..1; costs are not scores, see nas/cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from nas.architecture import Architecture

if TYPE_CHECKING:  # for annotations alone
    import torch.nn as nn


class Evaluator(Protocol):
    """Callable: architecture -> scores by name; `val_accuracy`, in 0..1, is always one of them.

    Equal calls give equal scores: whatever is random in an evaluation has a fixed seed. A subclass of NasError says that
    this one network could not be evaluated; the search records it and goes on.
    """

    def __call__(self, arch: Architecture) -> Mapping[str, float]:
        """Evaluate one network."""


class NetworkEvaluator(Evaluator, Protocol):
    """An evaluator that has the networks themselves: from a supernet, or each trained alone."""

    def plain(self, arch: Architecture) -> nn.Module:
        """The network as it is timed: its weights need not be trained, nor its norms calibrated."""

    def deliver(self, arch: Architecture) -> nn.Module:
        """The network as it is evaluated: in evaluation mode, norms recalibrated."""
