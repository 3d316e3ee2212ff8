"""What layers do to the labels of channels: one function a kind of layer, by the function that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.prune.groups import IN, OUT
from compress.prune.labels import FIXED
from compress.prune.products import product
from compress.prune.tracking import Call, LayerRule, Tracker


def _arguments(call: Call, *names: str) -> list[Any]:
    """Arguments by the names that the function gives them, in its order."""
    return [call.args[place] if place < len(call.args) else call.kwargs.get(name) for place, name in enumerate(names)]


def _channels(tracker: Tracker, labels: Tensor | None, dim: int) -> Tensor | None:
    """The labels of the channels of a tensor, (C,)."""
    if labels is None:
        return None
    dim = dim % labels.dim()
    others = [other for other in range(labels.dim()) if other != dim]
    found = tracker.labels.grouped(labels, others)
    for other in others:
        found = found.narrow(other, 0, 1)
    return found.reshape(-1)


def _along(channels: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Labels of channels as those of a tensor whose dimension `dim` they are."""
    return channels.reshape([-1 if other == dim % len(shape) else 1 for other in range(len(shape))]).expand(shape)


def _written(tracker: Tracker, layer: str, width: int) -> Tensor:
    """What a layer writes; a single channel is never cut, and has no label."""
    port = tracker.port(layer, OUT, width)
    return port if width > 1 else torch.zeros_like(port)


def _convolution(tracker: Tracker, call: Call) -> Tensor | None:
    x, weight = _arguments(call, "input", "weight")
    layer = tracker.layers.get(tracker.owner(weight) or "")
    if not isinstance(layer, _ConvNd):
        return _foreign_convolution(tracker, call)
    name, dim = str(tracker.owner(weight)), -len(layer.kernel_size) - 1
    ins = tracker.port(name, IN, layer.in_channels)
    tracker.meet(ins, _channels(tracker, tracker.of(x), dim))
    outs = _written(tracker, name, layer.out_channels)
    if layer.groups > 1 and isinstance(layer, _ConvTransposeNd):
        tracker.labels.fix(ins)
        tracker.labels.fix(outs)
    elif layer.groups > 1 and name in tracker.inner:
        tracker.labels.tied(ins, layer.groups, across=True)
        tracker.labels.tied(outs, layer.groups, across=True)
    elif layer.groups > 1:
        blocks = torch.cat([ins.reshape(layer.groups, -1), outs.reshape(layer.groups, -1)], 1)
        tracker.labels.grouped(blocks, [1])
    return _along(outs, dim, _shape(call))


def _foreign_convolution(tracker: Tracker, call: Call) -> Tensor | None:
    """With weights that are no layer's: a filter for each channel goes with it, all else stays."""
    x, weight = _arguments(call, "input", "weight")
    groups = _arguments(call, "input", "weight", "bias", "stride", "padding", "dilation", "groups")[6] or 1
    dim = -weight.dim() + 1
    channels = _channels(tracker, tracker.of(x), dim)
    filters = tracker.of(weight)
    if channels is None and filters is None:
        return None
    if channels is not None and filters is not None and weight.shape[0] == groups == x.shape[dim]:
        rows = _channels(tracker, filters, 0)
        assert rows is not None
        tracker.labels.unite(rows, channels)
        return _along(rows, dim, _shape(call))
    tracker.held["a convolution with weights that are no layer's"] = None
    tracker.labels.fix(channels)
    tracker.labels.fix(filters)
    return torch.tensor(FIXED).expand(_shape(call))


def _linear(tracker: Tracker, call: Call) -> Tensor | None:
    x, weight = _arguments(call, "input", "weight")
    name = tracker.owner(weight)
    layer = tracker.layers.get(name or "")
    if name is None or not isinstance(layer, nn.Linear):
        return _foreign_linear(tracker, x, weight, _shape(call))
    tracker.meet(tracker.port(name, IN, layer.in_features), _channels(tracker, tracker.of(x), -1))
    return _along(_written(tracker, name, layer.out_features), -1, _shape(call))


def _foreign_linear(tracker: Tracker, x: Tensor, weight: Tensor, shape: Sequence[int]) -> Tensor | None:
    """With weights that are no layer's: a matrix product."""
    if owner := tracker.owner(weight):
        tracker.misused(owner)
    known, filters = tracker.of(x), tracker.of(weight)
    if known is None and filters is None:
        return None
    tracker.held["a linear function with weights that are no layer's"] = None
    tracker.labels.fix(known)
    tracker.labels.fix(filters)
    return torch.tensor(FIXED).expand(shape)


def _by_channel(tracker: Tracker, x: Tensor, dim: int, parts: Sequence[object]) -> Tensor | None:
    """A norm, or what else has numbers for each channel: a layer, or `parts` of the network's own."""
    if x.dim() <= max(dim, 0):
        return tracker.of(x)
    channels = _channels(tracker, tracker.of(x), dim)
    width = x.shape[dim]
    owners = [name for part in parts if (name := tracker.owner(part))] or ([tracker.running] if tracker.running else [])
    for name in dict.fromkeys(owners):
        tracker.meet(tracker.port(name, OUT, width), channels)
    for part in parts:
        if (own := tracker.of(part)) is not None:
            tracker.meet(own.reshape(-1), channels)
    return None if channels is None else _along(channels, dim, x.shape)


def _batch_norm(tracker: Tracker, call: Call) -> Tensor | None:
    x, *parts = _arguments(call, "input", "running_mean", "running_var", "weight", "bias")
    return _by_channel(tracker, x, 1, parts)


def _prelu(tracker: Tracker, call: Call) -> Tensor | None:
    x, weight = _arguments(call, "input", "weight")
    return _by_channel(tracker, x, 1, [weight]) if weight.numel() > 1 else tracker.of(x)


def _group_norm(tracker: Tracker, call: Call) -> Tensor | None:
    x, groups, *parts = _arguments(call, "input", "num_groups", "weight", "bias")
    if groups > 1 and (channels := _channels(tracker, tracker.of(x), 1)) is not None:
        tracker.labels.tied(channels, groups, across=False)
    return _by_channel(tracker, x, 1, parts)


def _layer_norm(tracker: Tracker, call: Call) -> Tensor | None:
    """Over several dimensions, the first of them is that of channels."""
    x, shape, *parts = _arguments(call, "input", "normalized_shape", "weight", "bias")
    sides = len(shape) if isinstance(shape, Sequence) else 1
    if sides == 1:
        return _by_channel(tracker, x, -1, parts)
    parts = [part for part in parts if tracker.owner(part)]
    return _by_channel(tracker, x, x.dim() - sides, parts)


def _unchanged(tracker: Tracker, call: Call) -> Tensor | None:
    """Each value scaled by what lies around it."""
    return tracker.of(call.args[0] if call.args else call.kwargs.get("input"))


def _attention(tracker: Tracker, call: Call) -> Tensor | None:
    query, key, value = (tracker.of(x) for x in _arguments(call, "query", "key", "value"))
    shape = _shape(call)
    turned = None if key is None else key.transpose(-1, -2)
    places = _arguments(call, "query", "key")[1].shape[-2]
    scores = product(tracker, query, turned, (*shape[:-1], places))
    return product(tracker, scores, value, shape)


def _shape(call: Call) -> torch.Size:
    assert isinstance(call.output, Tensor)
    return call.output.shape


LAYERS: dict[object, LayerRule] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    **dict.fromkeys((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), _convolution),
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    torch.batch_norm: _batch_norm,
    F.instance_norm: _batch_norm,
    torch.instance_norm: _batch_norm,
    F.group_norm: _group_norm,
    torch.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.rms_norm: _layer_norm,
    torch.rms_norm: _layer_norm,
    F.prelu: _prelu,
    F.local_response_norm: _unchanged,
    F.normalize: _unchanged,
    F.scaled_dot_product_attention: _attention,
}
