"""Layers that torch-pruning's pruners cannot shrink: bare parameters, and layers that work in groups of channels.

Its pruner of layer norms loses the order of the channels, that of group norms the number of groups, that of grouped
convolutions which input belongs to which output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.prune.slices import last_dim


def shrunk(parameter: nn.Parameter, indices: list[int]) -> nn.Parameter:
    """A bare parameter without the given channels."""
    return _without(parameter, last_dim(parameter), indices)


def shrink_grouped(layer: _ConvNd, indices: list[int]) -> None:
    """Take output channels, whole groups of them, and the inputs of these groups, in place."""
    read, written = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    _shrink_parameters(layer, indices)
    layer.out_channels -= len(indices)
    layer.groups = layer.out_channels // written
    layer.in_channels = layer.groups * read


def shrink_norm(layer: nn.GroupNorm | nn.LayerNorm, indices: list[int]) -> None:
    """Take channels, and whole groups of them where there are several, in place."""
    _shrink_parameters(layer, indices)
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (layer.normalized_shape[0] - len(indices),)
    else:
        size = layer.num_channels // layer.num_groups
        layer.num_channels -= len(indices)
        layer.num_groups = layer.num_channels // size if layer.num_groups > 1 else 1


def _shrink_parameters(layer: nn.Module, indices: list[int]) -> None:
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, _without(parameter, 0, indices))


def _without(parameter: Tensor, dim: int, indices: list[int]) -> nn.Parameter:
    left = torch.ones(parameter.shape[dim], dtype=torch.bool, device=parameter.device)
    left[indices] = False
    return nn.Parameter(parameter.detach().index_select(dim, left.nonzero().flatten()))
