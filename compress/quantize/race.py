"""Candidates against each other on images in batches: what is clearly worse stops early, and most images judge the best few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from compress.quantize.passes import Passes

# images before anybody is left out, how many standard errors of the paired difference are clear, and which part of the
# best one's loss is no difference
FEWEST, CLEAR, ALIKE = 32, 3.0, 0.05
# of a mean loss that is told: its standard error
ERROR = 0.1


@dataclass(frozen=True)
class Runner:
    """A candidate: `loss(number)` gives the losses (N,) of the images of a batch; what was computed is kept."""

    loss: Callable[[int], Tensor]
    known: list[Tensor] = field(default_factory=list)

    def losses(self, batches: int) -> Tensor:
        """The losses of all images of the first `batches` batches."""
        self.known.extend(self.loss(number) for number in range(len(self.known), batches))
        return torch.cat(self.known[:batches])

    def told(self, batches: int) -> float:
        """The mean loss over so many batches, or over as many as it takes to know it well."""
        for number in range(1, batches + 1):
            losses = self.losses(max(number, len(self.known)))
            if len(losses) >= FEWEST and float(losses.std()) / sqrt(len(losses)) <= ERROR * float(losses.mean()):
                break
        return self.error

    @property
    def error(self) -> float:
        """The mean loss of the images that it was judged on."""
        return float(torch.cat(self.known).mean())


def winner(runners: Sequence[Runner], batches: int, passes: Passes | None = None) -> int:
    """The place of the runner of the least mean loss over so many batches, of equal ones the first.

    After each batch those are left out that are clearly behind the best one, or clearly no better; where one is left, it has
    won. `passes`, which expect every runner to judge all batches, are told of those that need not.
    """
    passes = passes or Passes()
    alive, best = list(range(len(runners))), 0
    for seen in range(1, batches + 1):
        losses = {place: runners[place].losses(seen) for place in alive}
        best = min(alive, key=lambda place: float(losses[place].mean()))
        alive = [place for place in alive if place == best or not _is_out(losses[place], losses[best])]
        left = len(alive) if len(alive) > 1 else 0
        passes.expect((left - len(losses)) * (batches - seen))
        if not left:
            break
    return best


def _is_out(losses: Tensor, best: Tensor) -> bool:
    difference = losses - best
    if len(difference) < FEWEST:
        return False
    mean, noise = float(difference.mean()), CLEAR * float(difference.std()) / sqrt(len(difference))
    return mean > noise or mean + noise < ALIKE * float(best.mean())
