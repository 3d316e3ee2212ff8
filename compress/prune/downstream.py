"""Importances by taking units away and looking at what follows: the loss, or the features downstream.

One run of the network a unit would take hours. Units of a group are therefore taken away in at most CHUNKS parts, of units
whose weights are about as large (compress.prune.magnitude.l2), and each unit gets its share of what its part does; inside a
part the larger weights come first. A group of up to CHUNKS units, such as attention heads, is measured unit by unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.prune.evidence import Evidence, loss
from compress.prune.groups import Group
from compress.prune.magnitude import l2
from compress.prune.slices import called, readers, silenced
from nas.cost.evaluation_mode import evaluation_mode
from nas.training.features import noting, relative

CHUNKS = 16
# features that `optin` compares, spread over what is run after the unit
FEATURES = 8
# what sets the units of a part apart, of the largest score: it matters only between parts that are all but equal
TIE = 1e-4

Chunks = Sequence[tuple[int, ...]]


def ablation(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Rise of the loss without the unit (MoPE, Lin et al. 2024), in the chunks of this file."""
    magnitudes = l2(module, group, evidence)
    chunks = _chunks(magnitudes)
    whole = loss(module, {}, evidence.batches)
    rises = [loss(module, silenced(module, [(group, units)]), evidence.batches) - whole for units in chunks]
    return _shared(chunks, rises, magnitudes)


@torch.no_grad()
def optin(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """How far features downstream move without the unit (OPTIN, Khaki and Plataniotis 2024), in the chunks of this file.

    The mean over FEATURES layers, from the first that reads the unit to the logits, and over all batches, of the squared
    distance to the features of the whole network by their squared norm. No labels are used.
    """
    magnitudes = l2(module, group, evidence)
    chunks = _chunks(magnitudes)
    layers = _layers_after(module, group, evidence.batches[0][0])
    moves = [0.0] * len(chunks)
    for images, _ in evidence.batches:
        whole = _features(module, layers, {}, images)
        for number, units in enumerate(chunks):
            moved = _features(module, layers, silenced(module, [(group, units)]), images)
            moves[number] += sum(float(relative(moved[name], whole[name])) for name in layers) / len(layers)
    return _shared(chunks, moves, magnitudes)


def _chunks(magnitudes: Tensor) -> Chunks:
    order = magnitudes.argsort(stable=True)
    return [tuple(part.tolist()) for part in order.tensor_split(min(CHUNKS, len(order)))]


def _shared(chunks: Chunks, values: Sequence[float], magnitudes: Tensor) -> Tensor:
    """What each unit has of its chunk's value, and a little for its magnitude."""
    scores = torch.empty(len(magnitudes))
    for units, value in zip(chunks, values, strict=True):
        scores[list(units)] = value / len(units)
    return scores + TIE * scores.abs().max() * magnitudes / magnitudes.max().clamp(min=torch.finfo(torch.float32).tiny)


# -- features


def _layers_after(module: nn.Module, group: Group, images: Tensor) -> list[str]:
    """At most FEATURES convolutions and linear layers that run from the first reader of the group on; the last is one."""
    layers = [name for name, x in module.named_modules() if isinstance(x, nn.Linear | nn.modules.conv._ConvNd)]
    with noting(module, layers) as seen, evaluation_mode(module):
        module(images[:1])
    order, reading = list(seen), {member.layer for member in readers(group)}
    later = order[next((place for place, name in enumerate(order) if name in reading), 0) :]
    places = torch.linspace(0, len(later) - 1, min(FEATURES, len(later))).round().int().tolist()
    return [later[place] for place in places]


def _features(module: nn.Module, layers: Sequence[str], parameters: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
    with noting(module, layers) as seen, evaluation_mode(module):
        called(module, dict(parameters), images)
    return seen
