"""What each module, function and method of a torch.fx graph is in a plan: one plain function each, in two visible dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch.nn as nn
from torch import Tensor, fx

from nas.cost.trace_names import ACTS, VIEW_FUNCTIONS, VIEW_MODULES
from nas.plan import Layer, Size

Shape = tuple[int, ...]
# layers that runtimes fuse with an activation that follows them
FUSES_ACT = frozenset({"conv", "linear", "add", "norm"})


@dataclass
class Draft:
    """A plan in the making: its layers by name, and for each node the layer whose output it holds or views."""

    graph: fx.GraphModule
    shapes: Mapping[fx.Node, Shape]
    layers: dict[str, Layer] = field(default_factory=dict)
    source: dict[fx.Node, str] = field(default_factory=dict)
    claimed: set[Tensor] = field(default_factory=set)

    def module(self, node: fx.Node) -> nn.Module:
        """The module that `node` calls."""
        return self.graph.get_submodule(str(node.target))

    def operation(self, node: fx.Node) -> str:
        """The name of the class, function or method that `node` calls."""
        if node.op == "call_module":
            return type(self.module(node)).__name__
        return node.target if isinstance(node.target, str) else node.target.__name__

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose tensors `node` reads, in order."""
        return [n for n in node.all_input_nodes if n in self.source]

    def claim(self, parameters: Sequence[Tensor]) -> bool:
        """Take parameters for a layer, once: a layer that shares some with another cannot be counted by itself."""
        new = not any(p in self.claimed for p in parameters)
        self.claimed.update(parameters)
        return new

    def emit(self, node: fx.Node, layer: Layer) -> None:
        """Append the layer whose output `node` holds; a module without parameters may run again, under the node's name."""
        layer = replace(layer, name=node.name) if layer.name in self.layers else layer
        self.layers[layer.name] = layer
        self.source[node] = layer.name

    def host(self, node: fx.Node) -> Layer | None:
        """The layer that `node` can be fused into: the one that it reads, if nothing else reads that."""
        name = self.source[self.inputs(node)[0]]
        holders = [n for n, source in self.source.items() if source == name]
        alone = all(sum(user in self.shapes for user in n.users) == 1 for n in holders)
        return self.layers.get(name) if alone else None

    def fuse(self, node: fx.Node, layer: Layer) -> None:
        """Put `layer` in the place of its host; `node` now holds its output."""
        self.layers[layer.name] = layer
        self.source[node] = layer.name


Handler = Callable[[Draft, fx.Node], None]


def as_map(shape: Shape) -> tuple[int, Size]:
    """Channels and size of an image (1, C, H, W); any other tensor has its channels last."""
    return (shape[1], (shape[0] * shape[2], shape[3])) if len(shape) == 4 else features_last(shape)


def features_last(shape: Shape) -> tuple[int, Size]:
    """Channels and size of a tensor (..., C): the other axes are one."""
    return (shape[-1], (prod(shape[:-1]), 1)) if shape else (1, (1, 1))


def _layer(draft: Draft, node: fx.Node, op: str, read: Callable[[Shape], tuple[int, Size]] = as_map) -> Layer:
    """The layer that the shapes tell of; `read` gives channels and size of a shape."""
    before = draft.inputs(node)
    out_channels, out_size = read(draft.shapes[node])
    in_channels, in_size = read(draft.shapes[before[0]]) if before else (out_channels, out_size)
    name = str(node.target) if node.op in ("call_module", "get_attr") else node.name
    return Layer(name, op, tuple(draft.source[n] for n in before), in_channels, out_channels, in_size, out_size)


def unknown(draft: Draft, node: fx.Node) -> None:
    """Anything without a handler: its own name is the operation."""
    draft.emit(node, _layer(draft, node, draft.operation(node)))


def shared(draft: Draft, node: fx.Node) -> None:
    """A module that runs again, or has a parameter of another one: nothing that can be counted layer by layer."""
    draft.emit(node, replace(_layer(draft, node, f"shared {draft.operation(node)}"), name=node.name))


def parameter(draft: Draft, node: fx.Node) -> None:
    """A parameter that the forward reads by itself, such as a position embedding. A buffer is unknown."""
    name = str(node.target)
    if name in draft.layers:
        draft.source[node] = name
        return
    *path, attribute = name.split(".")
    value = getattr(draft.graph.get_submodule(".".join(path)), attribute)
    op = "parameter" if isinstance(value, nn.Parameter) else "buffer"
    draft.emit(node, _layer(draft, node, op if draft.claim([value]) else f"shared {op}"))


def _view(draft: Draft, node: fx.Node) -> None:
    """Nothing is computed: the node holds what it reads."""
    before = draft.inputs(node)
    if not before:
        return unknown(draft, node)
    draft.source[node] = draft.source[before[0]]


def _conv(draft: Draft, node: fx.Node) -> None:
    conv: Any = draft.module(node)
    layer = _layer(draft, node, "conv")
    name = layer.name.removesuffix(".conv")  # in our networks a layer is a module that holds `conv` and `norm`
    window = {"kernel": conv.kernel_size, "stride": conv.stride, "groups": conv.groups}
    draft.emit(node, replace(layer, name=name, bias=conv.bias is not None, **window))


def _linear(draft: Draft, node: fx.Node) -> None:
    linear: Any = draft.module(node)
    draft.emit(node, replace(_layer(draft, node, "linear", features_last), bias=linear.bias is not None))


def _batch_norm(draft: Draft, node: fx.Node) -> None:
    norm: Any = draft.module(node)
    if not (norm.affine and norm.track_running_stats):
        return unknown(draft, node)
    _norm(draft, node, norm.num_features)


def _norm(draft: Draft, node: fx.Node, channels: int) -> None:
    host = draft.host(node)
    if host and host.op in ("conv", "linear") and not (host.norm or host.act) and host.out_channels == channels:
        return draft.fuse(node, replace(host, norm=True))
    layer = _layer(draft, node, "norm")
    draft.emit(node, replace(layer, inputs=layer.inputs[:1], norm=True))


def _batch_norm_function(draft: Draft, node: fx.Node) -> None:
    """A batch norm by function, as the classes of other libraries that derive from nn.BatchNorm2d call it."""
    own = draft.inputs(node)[1:]
    if not _own(draft, own, "buffer", "buffer", "parameter", "parameter"):
        return unknown(draft, node)
    _norm(draft, node, draft.shapes[own[0]][0])


def _linear_function(draft: Draft, node: fx.Node) -> None:
    """A linear layer by function, as the classes of other libraries that derive from nn.Linear call it, or a product."""
    own = draft.inputs(node)[1:]
    name = str(own[0].target) if own else ""
    if not (name.endswith(".weight") and _own(draft, own, *["parameter"] * len(own))):
        return _product(draft, node)
    layer = replace(_layer(draft, node, "linear", features_last), name=name.removesuffix(".weight"))
    draft.emit(node, replace(layer, inputs=layer.inputs[:1], bias=len(own) > 1))


def _own(draft: Draft, nodes: Sequence[fx.Node], *ops: str) -> bool:
    """Whether `nodes` are of these kinds and nothing else reads them: then they are part of a layer, and none themselves."""
    names = [draft.source[n] for n in nodes]
    alone = all(n.op == "get_attr" and len(n.users) == 1 for n in nodes)
    if not alone or [draft.layers[name].op for name in names if name in draft.layers] != [*ops]:
        return False
    for name in names:
        del draft.layers[name]
    return True


def _layer_norm(draft: Draft, node: fx.Node) -> None:
    norm: Any = draft.module(node)
    layer = _layer(draft, node, "layernorm", features_last if isinstance(norm, nn.LayerNorm) else as_map)
    if norm.weight is not None and norm.weight.numel() != layer.out_channels:
        return unknown(draft, node)
    draft.emit(node, replace(layer, norm=norm.weight is not None, bias=norm.bias is not None))


def _act(name: str) -> Handler:
    def handle(draft: Draft, node: fx.Node) -> None:
        host = draft.host(node)
        if host and host.op in FUSES_ACT and not host.act:
            return draft.fuse(node, replace(host, act=name))
        draft.emit(node, replace(_layer(draft, node, "act"), act=name))

    return handle


def _elementwise(op: str) -> Handler:
    """Operands may be broadcast: the operation works at the size of its output."""

    def handle(draft: Draft, node: fx.Node) -> None:
        layer = _layer(draft, node, op)
        draft.emit(node, replace(layer, in_channels=layer.out_channels, in_size=layer.out_size))

    return handle


def _plain(op: str) -> Handler:
    return lambda draft, node: draft.emit(node, _layer(draft, node, op))


def _channel_shuffle(draft: Draft, node: fx.Node) -> None:
    module: Any = draft.module(node)
    draft.emit(node, replace(_layer(draft, node, "shuffle"), groups=module.groups))


def _pool(op: str) -> Handler:
    """Pooling down to one pixel is global and has no window, whatever the module was told."""

    def handle(draft: Draft, node: fx.Node) -> None:
        layer = _layer(draft, node, op)
        if op == "avgpool" and layer.out_size == (1, 1):
            return draft.emit(node, replace(layer, op="pool"))
        kernel, stride = _window(draft, node)
        draft.emit(node, replace(layer, kernel=_pair(kernel), stride=_pair(kernel if stride is None else stride)))

    return handle


def _window(draft: Draft, node: fx.Node) -> tuple[Any, Any]:
    """Kernel and stride of a pooling module or function; 1 for adaptive pooling, which has none."""
    if "adaptive" in draft.operation(node).lower() or draft.operation(node) == "mean":
        return 1, 1
    if node.op == "call_module":
        module: Any = draft.module(node)
        return module.kernel_size, module.stride
    given = {**dict(zip(("input", "kernel_size", "stride"), node.args, strict=False)), **node.kwargs}
    return given["kernel_size"], given.get("stride")


def _pair(value: Any) -> Size:  # noqa: ANN401
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _product(draft: Draft, node: fx.Node) -> None:
    """A matrix product contracts the last axis of its first operand."""
    draft.emit(node, _layer(draft, node, "matmul", features_last))


def _attention(draft: Draft, node: fx.Node) -> None:
    """Queries (..., L, E), keys (..., S, E), values (..., S, V): heads are channels."""
    operands = [n for n in node.args[:3] if isinstance(n, fx.Node)]
    if len(operands) < 3:
        return unknown(draft, node)
    query, key, value = (draft.shapes[n] for n in operands)
    heads = prod(query[:-2])
    layer = replace(_layer(draft, node, "attention"), in_channels=heads * query[-1], out_channels=heads * value[-1])
    draft.emit(node, replace(layer, in_size=(key[-2], 1), out_size=(query[-2], 1)))


def _self_attention(draft: Draft, node: fx.Node) -> None:
    """Input projection, attention, output projection; anything else than plain self-attention is unknown."""
    module: Any = draft.module(node)
    extras = module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None
    if len(draft.inputs(node)) != 1 or not module.batch_first or extras:
        return unknown(draft, node)
    layer = _layer(draft, node, "linear", features_last)
    name, width = layer.name, layer.in_channels
    inner = replace(layer, name=f"{name}.in_proj", out_channels=3 * width, bias=module.in_proj_bias is not None)
    draft.emit(node, inner)
    draft.emit(node, replace(layer, name=f"{name}.attention", op="attention", inputs=(inner.name,)))
    outer = replace(layer, name=f"{name}.out_proj", inputs=(f"{name}.attention",), bias=module.out_proj.bias is not None)
    draft.emit(node, outer)


MODULES: dict[type[nn.Module], Handler] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _layer_norm,
    nn.MultiheadAttention: _self_attention,
    nn.AvgPool2d: _pool("avgpool"),
    nn.AdaptiveAvgPool2d: _pool("avgpool"),
    nn.MaxPool2d: _pool("maxpool"),
    nn.AdaptiveMaxPool2d: _pool("maxpool"),
    nn.Softmax: _plain("softmax"),
    nn.ZeroPad2d: _plain("pad"),
    nn.Upsample: _plain("resize"),
    nn.ChannelShuffle: _channel_shuffle,
    **{module: _act(name) for module, name in ACTS.items()},
    **dict.fromkeys(VIEW_MODULES, _view),
}

# functions and methods by name: F.relu, torch.relu and x.relu() are one operation
FUNCTIONS: dict[str, Handler] = {
    **dict.fromkeys(("add", "iadd", "add_", "sub", "isub"), _elementwise("add")),
    **dict.fromkeys(("mul", "imul", "mul_", "div", "truediv"), _elementwise("mul")),
    **dict.fromkeys(("neg", "abs", "pow", "exp", "sqrt", "rsqrt", "clamp", "rsub"), _elementwise("elementwise")),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _plain("concat")),
    **dict.fromkeys(("mean", "avg_pool2d", "adaptive_avg_pool2d"), _pool("avgpool")),
    **dict.fromkeys(("max_pool2d", "adaptive_max_pool2d"), _pool("maxpool")),
    **dict.fromkeys(("matmul", "bmm", "mm"), _product),
    "scaled_dot_product_attention": _attention,
    "softmax": _plain("softmax"),
    "linear": _linear_function,
    "batch_norm": _batch_norm_function,
    "layer_norm": _plain("layernorm"),
    "pad": _plain("pad"),
    "interpolate": _plain("resize"),
    **{name: _act(name) for name in ACTS.values()},
    **{f"{name}_": _act(name) for name in ACTS.values()},
    **dict.fromkeys(VIEW_FUNCTIONS, _view),
}
