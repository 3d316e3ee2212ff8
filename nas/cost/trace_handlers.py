"""What each module, function and method of a torch.fx graph is in a plan: one plain function each, in two visible dicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.nn as nn
from torch import fx

from nas.cost import trace_products as products
from nas.cost.trace_draft import Draft, Handler, Shape, arguments, as_map, features_last, layer_of, own, pair, sequence, unknown
from nas.cost.trace_names import ACTS, ELEMENTWISE, MOVES, REDUCTIONS, VIEW_FUNCTIONS, VIEW_MODULES
from nas.plan import Size

# layers that runtimes fuse with an activation that follows them
FUSES_ACT = frozenset({"conv", "linear", "add", "norm"})


def _view(draft: Draft, node: fx.Node) -> None:
    """Nothing is computed: the node holds what it reads."""
    before = draft.inputs(node)
    if not before:
        return unknown(draft, node)
    draft.source[node] = draft.source[before[0]]


def _batch_norm(draft: Draft, node: fx.Node) -> None:
    norm: Any = draft.module(node)
    if not (norm.affine and norm.track_running_stats):
        return unknown(draft, node)
    _norm(draft, node, norm.num_features)


def _norm(draft: Draft, node: fx.Node, channels: int) -> None:
    host = draft.host(node)
    if host and host.op in ("conv", "linear") and not (host.norm or host.act) and host.out_channels == channels:
        return draft.fuse(node, replace(host, norm=True))
    layer = layer_of(draft, node, "norm", sequence)
    draft.emit(node, replace(layer, inputs=layer.inputs[:1], norm=True))


def _batch_norm_function(draft: Draft, node: fx.Node) -> None:
    """A batch norm by function, as the classes of other libraries that derive from nn.BatchNorm2d call it."""
    found = draft.inputs(node)[1:]
    if not own(draft, found, "buffer", "buffer", "parameter", "parameter"):
        return unknown(draft, node)
    _norm(draft, node, draft.shapes[found[0]][0])


def _layer_norm(draft: Draft, node: fx.Node) -> None:
    norm: Any = draft.module(node)
    layer = layer_of(draft, node, "layernorm", features_last if isinstance(norm, nn.LayerNorm) else sequence)
    if norm.weight is not None and norm.weight.numel() != layer.out_channels:
        return unknown(draft, node)
    draft.emit(node, replace(layer, norm=norm.weight is not None, bias=norm.bias is not None))


def _act(name: str) -> Handler:
    def handle(draft: Draft, node: fx.Node) -> None:
        host = draft.host(node)
        if host and host.op in FUSES_ACT and not host.act:
            return draft.fuse(node, replace(host, act=name))
        draft.emit(node, replace(layer_of(draft, node, "act"), act=name))

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
    nn.Conv1d: products.conv,
    nn.Conv2d: products.conv,
    nn.Linear: products.linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _layer_norm,
    nn.MultiheadAttention: products.self_attention,
    nn.AvgPool2d: _pool("avgpool"),
    nn.AdaptiveAvgPool2d: _pool("avgpool"),
    nn.MaxPool2d: _pool("maxpool"),
    nn.AdaptiveMaxPool2d: _pool("maxpool"),
    nn.Softmax: _plain("softmax"),
    nn.ZeroPad2d: _plain("pad"),
    nn.Upsample: _plain("resize"),
    nn.ChannelShuffle: _channel_shuffle,
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle, nn.Unfold), _plain("move")),
    **dict.fromkeys((nn.AvgPool1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d), _plain("elementwise", sequence)),
    **{module: _act(name) for module, name in ACTS.items()},
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
    "softmax": _plain("softmax"),
    **dict.fromkeys(("conv1d", "conv2d"), products.conv_function),
    "linear": products.linear_function,
    "batch_norm": _batch_norm_function,
    **dict.fromkeys(("layer_norm", "group_norm"), _plain("layernorm")),
    "pad": _plain("pad"),
    "interpolate": _plain("resize"),
    **{name: _act(name) for name in ACTS.values()},
    **{f"{name}_": _act(name) for name in ACTS.values()},
    **dict.fromkeys(VIEW_FUNCTIONS, _view),
}
