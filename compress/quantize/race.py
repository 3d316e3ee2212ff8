"""Candidates against each other on images in batches: what is clearly worse stops early, and most images judge the best few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

# images before anybody is left out, and how many standard errors of the paired difference are clear
FEWEST, CLEAR = 32, 3.0


@dataclass(frozen=True)
class Runner:
    """A candidate: `loss(number)` gives the losses (N,) of the images of a batch; what was computed is kept."""

    loss: Callable[[int], Tensor]
    known: list[Tensor] = field(default_factory=list)

    def losses(self, batches: int) -> Tensor:
        """The losses of all images of the first `batches` batches."""
        self.known.extend(self.loss(number) for number in range(len(self.known), batches))
        return torch.cat(self.known[:batches])

    @property
    def error(self) -> float:
        """The mean loss of the images that it was judged on."""
        return float(torch.cat(self.known).mean())


def winner(runners: Sequence[Runner], batches: int) -> int:
    """The place of the runner of the least mean loss over so many batches, of equal ones the first.

    After each batch those are left out that are CLEAR standard errors behind the best one; where one is left, it has won.
    """
    alive, best = list(range(len(runners))), 0
    for seen in range(1, batches + 1):
        losses = {place: runners[place].losses(seen) for place in alive}
        best = min(alive, key=lambda place: float(losses[place].mean()))
        alive = [place for place in alive if not _is_behind(losses[place], losses[best])]
        if len(alive) == 1:
            break
    return best


def _is_behind(losses: Tensor, best: Tensor) -> bool:
    difference = losses - best
    if len(difference) < FEWEST:
        return False
    return float(difference.mean()) > CLEAR * float(difference.std()) / sqrt(len(difference))
