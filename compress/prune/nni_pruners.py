"""Importances by the masks of nni's pruners, scores (width,) as in compress.prune.importance. The only file that imports nni.

A mask only says what is kept at one sparsity: a unit scores at how many of LEVELS sparsities it is kept. The layers that write
a group form one dependency group of nni, which ranks a unit by the mean of what its pruner gives it in each of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.prune.evidence import Evidence
from compress.prune.groups import OUT, Group
from compress.prune.magnitude import weights
from nas.errors import InvalidSetting, MissingPackage

LEVELS = 8


def nni_l1(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Levels that the unit survives in nni's L1NormPruner: absolute sums of filters (Li et al. 2017).

    Raises MissingPackage; InvalidSetting where no convolution or linear layer writes the group.
    """
    return _survived("L1NormPruner", module, group)


def nni_l2(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """The same of L2NormPruner: Euclidean norms of filters."""
    return _survived("L2NormPruner", module, group)


def nni_fpgm(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """The same of FPGMPruner: distances to all other filters (He et al. 2019)."""
    return _survived("FPGMPruner", module, group)


def _survived(pruner: str, module: nn.Module, group: Group) -> Tensor:
    pruning, filters = require_nni(), _filters(module, group)
    if not all(weight.isfinite().all() for weight in filters):
        return torch.full((group.width,), torch.nan)  # a mask would hide them
    scores = torch.zeros(group.width)
    for level in range(1, LEVELS + 1):
        cut = max(1, group.width * level // (LEVELS + 1))
        layers = nn.ModuleList(map(_linear, filters))
        config = {
            "op_names": [name for name, _ in layers.named_children()],
            "sparse_ratio": math.nextafter(cut / group.width, 1.0),  # nni rounds the number of units down
            "dependency_group_id": group.name,
        }
        _, masks = getattr(pruning, pruner)(layers, [config]).compress()
        scores += masks["0"]["weight"][:, 0]
    return scores


def _filters(module: nn.Module, group: Group) -> list[Tensor]:
    """The weights that write the units in each layer, in one row a unit."""
    layers = dict(module.named_modules())
    writers = {m for m in group.members if m.side == OUT and isinstance(layers.get(m.layer), nn.Linear | _ConvNd)}
    if not writers:
        raise InvalidSetting(f"nni's pruners need a convolution or linear layer that writes group {group.name!r}; choose l2")
    return [weight for member, weight in weights(module, group) if member in writers]


def _linear(filters: Tensor) -> nn.Linear:
    """A layer with one output a unit: nni knows layers by their types, and neither heads nor other kinds of units."""
    layer = nn.Linear(filters.shape[1], filters.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(filters)
    return layer


def require_nni() -> Any:  # noqa: ANN401
    """The module of nni's pruners. Raises MissingPackage."""
    try:
        from nni.compression import pruning  # type: ignore  # an extra
    except ImportError as error:
        raise MissingPackage(f"nni's pruners cannot be loaded ({error}); pip install 'netcarver[nni]'") from error
    return pruning
