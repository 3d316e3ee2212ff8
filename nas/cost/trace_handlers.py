"""What each module, function and method of a torch.fx graph is in a plan: one plain function each, in two visible dicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn as nn
from torch import fx

from nas.cost import trace_products as products
from nas.cost.trace_draft import (
    Draft,
    Handler,
    Shape,
    arguments,
    as_map,
    features_last,
    layer_of,
    own,
    own_tensors,
    pair,
    sequence,
    unknown,
    volume,
)
from nas.cost.trace_names import (
    ACTS,
    ELEMENTWISE,
    MOVES,
    OTHER_ACTS,
    REDUCTIONS,
    SOFTMAX_FUNCTIONS,
    SOFTMAX_MODULES,
    VIEW_FUNCTIONS,
    VIEW_MODULES,
    ZERO_PADS,
)
from nas.plan import Size

# scale, shift, mean, variance, and the number of batches that they are of
NORM_TENSORS = 5
# layers that runtimes fuse with an activation that follows them
FUSES_ACT = frozenset({"conv", "linear", "add", "norm"})


def _view(draft: Draft, node: fx.Node) -> None:
    """Nothing is computed: the node holds what it reads."""
    before = draft.inputs(node)
    if not before:
        return unknown(draft, node)
    draft.source[node] = draft.source[before[0]]


def _batch_norm(draft: Draft, node: fx.Node) -> None:
    """Scale, shift and statistics of one that has all of them are counted with the layer that it folds into."""
    norm: Any = draft.module(node)
    stored = own_tensors(norm)
    whole = len(stored) == NORM_TENSORS and draft.free(stored.values()) and norm.weight.dtype == torch.float32
    _norm(draft, node, norm.num_features if whole else None)


def _norm(draft: Draft, node: fx.Node, channels: int | None) -> None:
    """A batch norm of so many channels; None for one that lacks some of its tensors, or has others."""
    host = draft.host(node) if channels is not None else None
    fits = host and host.own and host.op in ("conv", "linear") and not (host.norm or host.act) and host.out_channels == channels
    if host and fits:
        return draft.fuse(node, replace(host, norm=True))
    layer = layer_of(draft, node, "norm", volume)
    draft.emit(node, replace(layer, inputs=layer.inputs[:1], norm=True, own=channels is not None))


def _batch_norm_function(draft: Draft, node: fx.Node) -> None:
    """A batch norm by function, as the classes of other libraries that derive from nn.BatchNorm2d call it."""
    found = draft.inputs(node)[1:]
    owner = draft.root.get_submodule(str(found[0].target).rpartition(".")[0]) if found and found[0].op == "get_attr" else None
    whole = isinstance(owner, nn.modules.batchnorm._NormBase) and len(own_tensors(owner)) == NORM_TENSORS
    if owner is None or not (whole and own(draft, found, "buffer", "buffer", "parameter", "parameter")):
        return _norm(draft, node, None)
    draft.claimed.update(own_tensors(owner).values())
    _norm(draft, node, draft.shapes[found[0]][0])


def _layer_norm(draft: Draft, node: fx.Node) -> None:
    """A layer, group, instance or RMS norm; what has other than one scale and one shift a channel holds them by itself."""
    names, last = own_tensors(draft.module(node)), isinstance(draft.module(node), nn.LayerNorm | nn.RMSNorm)
    layer = layer_of(draft, node, "layernorm", features_last if last else volume)
    draft.emit(node, replace(layer, norm="weight" in names, bias="bias" in names))


def _act(name: str) -> Handler:
    def handle(draft: Draft, node: fx.Node) -> None:
        host = draft.host(node)
        if host and host.op in FUSES_ACT and not host.act:
            return draft.fuse(node, replace(host, act=name))
        layer = layer_of(draft, node, "act", before=draft.inputs(node)[:1])
        draft.emit(node, replace(layer, act=name))

    return handle


def _elementwise(op: str) -> Handler:
    """Operands may be broadcast: the operation works at the size of its output."""

    def handle(draft: Draft, node: fx.Node) -> None:
        layer = layer_of(draft, node, op)
        draft.emit(node, replace(layer, in_channels=layer.out_channels, in_size=layer.out_size))

    return handle


def _plain(op: str, read: Callable[[Shape], tuple[int, Size]] = as_map) -> Handler:
    return lambda draft, node: draft.emit(node, layer_of(draft, node, op, read))


def _channel_shuffle(draft: Draft, node: fx.Node) -> None:
    module: Any = draft.module(node)
    draft.emit(node, replace(layer_of(draft, node, "shuffle"), groups=module.groups))


def _pool(op: str) -> Handler:
    """Pooling down to one pixel is global and has no window, whatever the module was told."""

    def handle(draft: Draft, node: fx.Node) -> None:
        layer = layer_of(draft, node, op)
        if op == "avgpool" and layer.out_size == (1, 1):
            return draft.emit(node, replace(layer, op="pool"))
        kernel, stride = _window(draft, node)
        draft.emit(node, replace(layer, kernel=pair(kernel), stride=pair(kernel if stride is None else stride)))

    return handle


def _window(draft: Draft, node: fx.Node) -> tuple[Any, Any]:
    """Kernel and stride of a pooling module or function; 1 for adaptive pooling, which has none."""
    if "adaptive" in draft.operation(node).lower() or draft.operation(node) == "mean":
        return 1, 1
    if node.op == "call_module":
        module: Any = draft.module(node)
        return module.kernel_size, module.stride
    given = arguments(node, ("input", "kernel_size", "stride"))
    return given["kernel_size"], given.get("stride")


MODULES: dict[type[nn.Module], Handler] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), products.conv("conv")),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), products.conv("conv_transpose")),
    nn.Linear: products.linear,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), _batch_norm),
    **dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), _layer_norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _layer_norm),
    nn.MultiheadAttention: products.self_attention,
    nn.AvgPool2d: _pool("avgpool"),
    nn.AdaptiveAvgPool2d: _pool("avgpool"),
    nn.MaxPool2d: _pool("maxpool"),
    nn.AdaptiveMaxPool2d: _pool("maxpool"),
    **dict.fromkeys(SOFTMAX_MODULES, _plain("softmax")),
    **dict.fromkeys(ZERO_PADS, _plain("pad")),
    nn.Upsample: _plain("resize"),
    nn.ChannelShuffle: _channel_shuffle,
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle, nn.Unfold), _plain("move")),
    **dict.fromkeys((nn.AvgPool1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d), _plain("elementwise", sequence)),
    **dict.fromkeys((nn.AvgPool3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d), _plain("elementwise", volume)),
    **{module: _act(name) for module, name in (ACTS | OTHER_ACTS).items()},
    **dict.fromkeys(VIEW_MODULES, _view),
}

# functions and methods by name: F.relu, torch.relu and x.relu() are one operation
FUNCTIONS: dict[str, Handler] = {
    **dict.fromkeys(("add", "iadd", "add_", "sub", "isub"), _elementwise("add")),
    **dict.fromkeys(("mul", "imul", "mul_", "div", "truediv"), _elementwise("mul")),
    **dict.fromkeys(ELEMENTWISE, _elementwise("elementwise")),
    **dict.fromkeys(REDUCTIONS, _plain("elementwise")),
    **dict.fromkeys(MOVES, _plain("move")),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _plain("concat")),
    **dict.fromkeys(("mean", "avg_pool2d", "adaptive_avg_pool2d"), _pool("avgpool")),
    **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d"), _pool("maxpool")),
    **dict.fromkeys(("matmul", "bmm", "mm"), products.product),
    "scaled_dot_product_attention": products.attention,
    "einsum": products.einsum,
    "shifted_window_attention": products.windows,
    "_get_relative_position_bias": _plain("move"),
    "_patch_merging_pad": _plain("concat"),
    **dict.fromkeys(SOFTMAX_FUNCTIONS, _plain("softmax")),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), products.conv_function("conv")),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), products.conv_function("conv_transpose")),
    "linear": products.linear_function,
    "batch_norm": _batch_norm_function,
    **dict.fromkeys(("layer_norm", "group_norm"), _plain("layernorm")),
    "pad": _plain("pad"),
    "interpolate": _plain("resize"),
    **{name: _act(name) for name in (*ACTS.values(), *OTHER_ACTS.values())},
    **{f"{name}_": _act(name) for name in (*ACTS.values(), *OTHER_ACTS.values())},
    **dict.fromkeys(VIEW_FUNCTIONS, _view),
}
