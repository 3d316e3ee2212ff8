"""Rate-distortion curves: how far the outputs of a network move when one group keeps only some of its units.

Distortions of several groups add up, nearly, so that these curves tell an allocation where to cut (Xu et al. 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.prune.groups import Group
from compress.prune.resuming import resumable
from nas.training.calibration import batch_statistics

Curves = dict[str, dict[int, float]]
CutOff = Callable[[Group, int], dict[str, Tensor]]
# widths at which a curve is measured; between them it is interpolated
POINTS = 8
# a point is measured on so many images at least, until its standard error is this part of it
LEAST_IMAGES, ERROR = 64, 0.1
# features that are kept of one batch, and the fewest images that norms have their statistics of
MEMORY, FEWEST = 1.5e9, 32
Report = Callable[[int, int], None]


@torch.no_grad()
def curves(
    module: nn.Module,
    groups: Sequence[Group],
    options: Mapping[str, Sequence[int]],
    batches: Sequence[Tensor],
    cut_off: CutOff,
    report: Report = lambda done, total: None,
) -> Curves:
    """The distortion by group and by the units that it keeps while all others are whole; 0 at its width.

    That is the mean Kullback-Leibler divergence of the class probabilities from those of the whole network, in nats, over
    `batches` of images (N, C, H, W), both on the batch's own norm statistics, as norms are recalibrated after a cut. Each
    batch is run from the features before the layers that read the group; a point whose error is small needs no further ones.
    `options` are the units that groups may keep; `cut_off` gives the parameters with which a group keeps so many of them.
    """
    points = {group.name: {kept: Point() for kept in _some(options[group.name])} for group in groups}
    done, total = 0, len(groups) * len(batches)
    with resumable(module) as make:
        for images in batches:
            with batch_statistics(module):
                run = make(images)
                whole = F.log_softmax(run({}).float(), 1)
                run = make(images)
                for group in groups:
                    for kept in [kept for kept, point in points[group.name].items() if not point.settled]:
                        points[group.name][kept] += _distances(run(cut_off(group, kept)), whole)
                    done += 1
                    report(done, total)
            if all(point.settled for row in points.values() for point in row.values()):
                break
    report(total, total)
    return {group.name: {group.width: 0.0, **{k: p.mean for k, p in points[group.name].items()}} for group in groups}


@dataclass(frozen=True)
class Point:
    """What is known of one point of a curve: the number of images, and the sums of their distances and their squares."""

    images: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, distances: Tensor) -> Point:
        values = distances.double()
        return Point(self.images + len(values), self.total + float(values.sum()), self.squares + float(values.square().sum()))

    @property
    def mean(self) -> float:
        """The distance."""
        return self.total / self.images

    @property
    def settled(self) -> bool:
        """Whether the standard error is small beside the mean."""
        if self.images < LEAST_IMAGES:
            return False
        variance = max(0.0, self.squares / self.images - self.mean**2)
        return math.sqrt(variance / self.images) <= ERROR * abs(self.mean)


def _distances(logits: Tensor, whole: Tensor) -> Tensor:
    """Divergences from the whole network's log-probabilities, (N,)."""
    return F.kl_div(F.log_softmax(logits.float(), 1), whole, reduction="none", log_target=True).sum(1)


def divided(batches: Sequence[Tensor], bytes_each: float) -> tuple[Tensor, ...]:
    """Batches of as many images as a memory of MEMORY bytes holds, if one takes `bytes_each`, and of FEWEST at least."""
    most = max(FEWEST, int(MEMORY / bytes_each))
    return tuple(part for x in batches for part in x.chunk(max(1, min(math.ceil(len(x) / most), len(x) // FEWEST))))


@torch.no_grad()
def divergences(module: nn.Module, networks: Mapping[str, nn.Module], batches: Sequence[Tensor]) -> dict[str, float]:
    """The same distortion of whole networks, such as `module` without one of its blocks, by name."""
    with batch_statistics(module):
        whole = [F.log_softmax(module(images).float(), 1) for images in batches]
    found = {}
    for name, network in networks.items():
        with batch_statistics(network):
            total = math.fsum(float(_distances(network(x), y).sum()) for x, y in zip(batches, whole, strict=True))
        found[name] = total / sum(map(len, whole))
    return found


def _some(options: Sequence[int]) -> list[int]:
    """At most POINTS of the options, evenly spread, but for the last, which is the whole group."""
    partial = options[:-1]
    places = torch.linspace(0, len(partial) - 1, min(POINTS, len(partial))).round().int().tolist()
    return [partial[place] for place in places]
