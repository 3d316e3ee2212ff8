"""Rate-distortion curves: how far the outputs of a network move when one group keeps only some of its units.

Distortions of several groups add up, nearly, so that these curves tell an allocation where to cut (Xu et al. 2023).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.prune.groups import Group
from compress.prune.resuming import Resumable, resumable
from compress.prune.slices import readers
from nas.training.calibration import batch_statistics

Curves = dict[str, dict[int, float]]
CutOff = Callable[[Group, int], dict[str, Tensor]]
# widths at which a curve is measured; between them it is interpolated
POINTS = 4
# a point is measured on a batch at least, and on further ones until its standard error is this part of it
ERROR = 0.2
# features that are kept of all batches, and the fewest images that norms have their statistics of
MEMORY, FEWEST = 1.5e9, 32
# of nothing: the logarithm of a distance is interpolated
LEAST = 1e-12
# progress reports a point, and images that the share of work behind each group is measured with
REPORTED, TIMED = 10, 8
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
    `report` is told of work, which is most for the groups at the front of the network.
    """
    found: Curves = {}
    total = POINTS * len(groups) * REPORTED
    report(0, total)
    with resumable(module) as make, batch_statistics(module):
        shares = _shares(module, groups, batches[0])
        runs = [_Run(make, images) for images in batches]
        for place, group in enumerate(groups):
            points = {kept: Point() for kept in _some(options[group.name])}
            for kept in points:
                parameters = cut_off(group, kept)
                for run in runs:
                    if points[kept].settled:
                        break
                    points[kept] += run.distances(parameters)
            found[group.name] = between({k: p.mean for k, p in points.items()}, options[group.name])
            report(round(total * math.fsum(shares[: place + 1]) / math.fsum(shares)), total)
    return found


class _Run:
    """One batch: the whole network's log-probabilities (N, classes), and the network from the features before a group on."""

    def __init__(self, make: Callable[[Tensor], Resumable], images: Tensor) -> None:
        self._make, self._images = make, images
        self._run: Resumable | None = None

    def distances(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """How far the outputs move with other parameters, (N,)."""
        if self._run is None:  # a batch that no point needs is not run
            self._whole = F.log_softmax(self._make(self._images)({}).float(), 1)
            self._run = self._make(self._images)  # which keeps nothing yet
        return _distances(self._run(parameters), self._whole)


def _shares(module: nn.Module, groups: Sequence[Group], images: Tensor) -> list[float]:
    """The part of a run's time that comes after the first layer that reads a group, by group."""
    parts = dict(module.named_modules())
    layers = {member.layer: parts[member.layer] for group in groups for member in readers(group) if member.layer in parts}
    began: dict[str, float] = {}

    def noting(name: str) -> Callable[..., None]:
        return lambda *_: began.update({name: began.get(name, time.perf_counter())})

    hooks = [layer.register_forward_pre_hook(noting(name)) for name, layer in layers.items()]
    start = time.perf_counter()
    try:
        module(images[:TIMED])
    finally:
        for hook in hooks:
            hook.remove()
    end = time.perf_counter()
    firsts = [min((began.get(member.layer, start) for member in readers(group)), default=start) for group in groups]
    return [(end - first) / (end - start) for first in firsts]


def between(points: Mapping[int, float], options: Sequence[int]) -> dict[int, float]:
    """A curve at all options, the last of which is the whole group, from its measured points.

    Distances fall by orders of magnitude from the fewest units to all of them, so that their logarithms are interpolated, and
    behind the last point, where they come to 0, they themselves.
    """
    if not points:
        return {options[-1]: 0.0}
    known = sorted(points)
    logs = np.interp(options, known, [math.log(max(LEAST, points[kept])) for kept in known])
    last, whole = known[-1], options[-1]
    curve = {kept: math.exp(log) for kept, log in zip(options, logs.tolist(), strict=True) if kept <= last}
    curve |= {kept: points[last] * (whole - kept) / (whole - last) for kept in options if kept > last}
    return curve | {kept: points[kept] for kept in known}


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
        if self.images < FEWEST:
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
