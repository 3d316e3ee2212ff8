"""Rate-distortion curves: how far the outputs of a network move when one group keeps only some of its units.

Distortions of several groups add up, nearly, so that these curves tell an allocation where to cut (Xu et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.prune.groups import Group
from compress.prune.slices import called, silenced
from nas.training.calibration import batch_statistics

Curves = dict[str, dict[int, float]]
CutOff = Callable[[nn.Module, Sequence[tuple[Group, Sequence[int]]]], dict[str, Tensor]]
# widths at which a curve is measured; between them it is interpolated
POINTS = 8


@torch.no_grad()
def curves(
    module: nn.Module,
    groups: Sequence[Group],
    options: Mapping[str, Sequence[int]],
    order: Mapping[str, Sequence[int]],
    batches: Sequence[Tensor],
    cut_off: CutOff = silenced,
) -> Iterator[tuple[str, dict[int, float]]]:
    """Yield each group with its distortion by the units that it keeps while all others are whole; 0 at its width.

    That is the mean Kullback-Leibler divergence of the class probabilities from those of the whole network, in nats, over
    `batches` of images (N, C, H, W), both on the batch's own norm statistics, as norms are recalibrated after a cut.
    `options` are the units that groups may keep, `order` their units, first those that go first; `cut_off` gives the
    parameters with which nothing reads some units, as `silenced` does.
    """
    with batch_statistics(module):
        whole = [F.log_softmax(module(images).float(), 1) for images in batches]
    for group in groups:
        curve = {group.width: 0.0}
        for kept in _some(options[group.name]):
            parameters = cut_off(module, [(group, order[group.name][: group.width - kept])])
            with batch_statistics(module):
                curve[kept] = _divergence(module, parameters, batches, whole)
        yield group.name, curve


def divergences(module: nn.Module, networks: Mapping[str, nn.Module], batches: Sequence[Tensor]) -> dict[str, float]:
    """The same distortion of whole networks, such as `module` without one of its blocks, by name."""
    with torch.no_grad(), batch_statistics(module):
        whole = [F.log_softmax(module(images).float(), 1) for images in batches]
    found = {}
    for name, network in networks.items():
        with torch.no_grad(), batch_statistics(network):
            found[name] = _divergence(network, {}, batches, whole)
    return found


def _some(options: Sequence[int]) -> list[int]:
    """At most POINTS of the options, evenly spread, but for the last, which is the whole group."""
    partial = options[:-1]
    places = torch.linspace(0, len(partial) - 1, min(POINTS, len(partial))).round().int().tolist()
    return [partial[place] for place in places]


def _divergence(
    module: nn.Module, parameters: Mapping[str, Tensor], batches: Sequence[Tensor], whole: Sequence[Tensor]
) -> float:
    total = 0.0
    for images, expected in zip(batches, whole, strict=True):
        logits = called(module, dict(parameters), images)
        total += float(F.kl_div(F.log_softmax(logits.float(), 1), expected, reduction="sum", log_target=True))
    return total / sum(map(len, whole))
