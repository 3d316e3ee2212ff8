"""Where the features of a cut network are comparable with those of the network that it was cut from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compress.prune.dependencies import analyse
from compress.prune.depth import residual_blocks, without
from compress.prune.groups import IN, OUT, gone
from compress.prune.history import History
from nas.cost.evaluation_mode import evaluation_mode
from nas.training.features import Place, channels_dim, kept_of, noting


@torch.no_grad()
def places(original: nn.Module, student: nn.Module, example: Tensor, history: History) -> tuple[Place, ...]:
    """The residual blocks that `student` still has, and which channels each writes; none for a network without such blocks.

    `student` is `original` after `history`; `example` (N, C, H, W) is run through both. All are on the CPU, where groups are
    proven. Raises InvalidSetting.
    """
    blocks = [name for name in residual_blocks(original, example) if name not in history.blocks]
    if not blocks:
        return ()
    removed = gone(analyse(without(original, history.blocks), example), history.cuts)
    with noting(original, blocks) as theirs, noting(student, blocks) as mine:
        with evaluation_mode(original), evaluation_mode(student):
            original(example)
            student(example)
    found = [Place(name, _kept(original, name, removed, theirs[name].shape[channels_dim(theirs[name])])) for name in blocks]
    return tuple(place for place in found if kept_of(theirs[place.part], place).shape == mine[place.part].shape)


def _kept(network: nn.Module, block: str, removed: Mapping[tuple[str, str], list[int]], width: int) -> tuple[int, ...] | None:
    """A block writes the channels that its first layer reads, for it adds to them."""
    layers = ((f"{block}.{name}", part) for name, part in network.get_submodule(block).named_modules() if name)
    first = next((row for row in layers if any(True for _ in row[1].parameters(recurse=False))), None)
    if first is None:
        return None
    # a norm writes what it reads, and so do convolutions of several groups (compress.prune.dependencies)
    mixes = isinstance(first[1], nn.Linear | nn.modules.conv._ConvNd) and getattr(first[1], "groups", 1) == 1
    lost = set(removed.get((first[0], IN if mixes else OUT), ()))
    return tuple(i for i in range(width) if i not in lost) if lost else None
