"""Layers and bare tensors without some of their channels, in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.prune.groups import IN, OUT
from compress.prune.slices import last_dim

# what a norm calls its number of channels
CHANNELS = ("num_features", "num_channels", "num_parameters")


def shrunk(tensor: Tensor, indices: list[int], dim: int | None = None) -> Tensor:
    """A bare parameter or buffer without the given channels."""
    left = _without(tensor, last_dim(tensor) if dim is None else dim, indices)
    return nn.Parameter(left) if isinstance(tensor, nn.Parameter) else left


def shrink(layer: nn.Module, side: str, indices: list[int]) -> None:
    """Take channels from a layer. A convolution of several groups loses whole groups, with their inputs, or of each as many."""
    if isinstance(layer, nn.Linear):
        _shrink_weighted(layer, side, indices, "features", transposed=False)
    elif isinstance(layer, _ConvNd) and (layer.groups == 1 or _keeps_groups(layer, side, indices)):
        _shrink_weighted(layer, side, indices, "channels", isinstance(layer, _ConvTransposeNd))
    elif isinstance(layer, _ConvNd):
        _shrink_groups(layer, indices)
    else:
        _shrink_norm(layer, indices)


def _shrink_weighted(layer: nn.Module, side: str, indices: list[int], unit: str, transposed: bool) -> None:
    own, bias = layer.weight, layer.bias
    assert isinstance(own, Tensor)
    layer.weight = nn.Parameter(_without(own, int((side == IN) != transposed), indices))
    if side == OUT and isinstance(bias, Tensor):
        layer.bias = nn.Parameter(_without(bias, 0, indices))
    name = f"{side}_{unit}"
    groups = layer.groups if side == IN and isinstance(layer, _ConvNd) else 1
    setattr(layer, name, getattr(layer, name) - len(indices) * groups)


def _keeps_groups(layer: _ConvNd, side: str, indices: list[int]) -> bool:
    """Whether each group loses as many channels; inputs are those of one group."""
    size = layer.out_channels // layer.groups
    counts = {sum(index // size == group for index in indices) for group in range(layer.groups)}
    return side == IN or (len(counts) == 1 and size not in counts)


def _shrink_groups(layer: _ConvNd, indices: list[int]) -> None:
    read, written = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    _shrink_tensors(layer, layer.out_channels, indices)
    layer.out_channels -= len(indices)
    layer.groups = layer.out_channels // written
    layer.in_channels = layer.groups * read


def _shrink_norm(layer: nn.Module, indices: list[int]) -> None:
    """A norm, or what else has numbers for each channel; several groups of a norm go as a whole."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        first, *rest = layer.normalized_shape
        _shrink_tensors(layer, first, indices)
        layer.normalized_shape = (first - len(indices), *rest)
        return
    name = next(name for name in CHANNELS if hasattr(layer, name))
    width = getattr(layer, name)
    _shrink_tensors(layer, width, indices)
    setattr(layer, name, width - len(indices))
    if isinstance(layer, nn.GroupNorm) and layer.num_groups > 1:
        layer.num_groups = layer.num_channels // (width // layer.num_groups)


def _shrink_tensors(layer: nn.Module, width: int, indices: list[int]) -> None:
    tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
    for name, tensor in tensors:
        if tensor.dim() and tensor.shape[0] == width:
            setattr(layer, name, shrunk(tensor, indices, 0))


def _without(tensor: Tensor, dim: int, indices: list[int]) -> Tensor:
    left = torch.ones(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
    left[indices] = False
    return tensor.detach().index_select(dim, left.nonzero().flatten())
