"""What each operator of an ONNX graph is in a plan: one plain function each, in one visible dict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NoReturn

from nas.cost.trace_draft import Shape, as_map, features_last
from nas.cost.trace_handlers import FUSES_ACT
from nas.errors import InvalidSetting
from nas.onnx_values import Graph, Node
from nas.plan import Layer, Size

# operators that read nothing but the shape of their input
SHAPE_ONLY = ("Shape", "Size")
MOST_NUMBERS = 1 << 50  # of a tensor, more than any machine holds


@dataclass
class Draft:
    """A plan in the making: its layers by name, and for each activation the layer whose output it holds or views.

    `origin` traces a constant that is computed from another one, such as a transposed weight, back to that one.
    """

    graph: Graph
    shapes: Mapping[str, Shape]
    path: str
    layers: dict[str, Layer] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    holders: dict[str, list[str]] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)

    def shape(self, value: str) -> Shape:
        """The shape of a value. Raises InvalidSetting if it is not known."""
        if value not in self.shapes:
            makers = [n.op for n in self.graph.nodes if value in n.outputs]
            raise InvalidSetting(
                f"ONNX file {self.path!r}: the shape of {value!r}, which {''.join(makers)} puts out, is not known; "
                "export the network with static shapes, or give its module"
            )
        shape = self.shapes[value]
        if min(shape, default=1) < 0 or math.prod(shape) > MOST_NUMBERS:
            self.refuse(f"{value!r} has the shape {shape}")
        return shape

    def refuse(self, what: str) -> NoReturn:
        """Raise InvalidSetting for what no exporter writes."""
        raise InvalidSetting(f"ONNX file {self.path!r} is spoiled: {what[:300]}; export it again")

    def ints(self, node: Node, name: str, default: int | tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is whole numbers above 0, or its default. Raises InvalidSetting for another one."""
        value = node.attributes.get(name, default)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(isinstance(n, int) and 0 < n < MOST_NUMBERS for n in numbers):
            self.refuse(f"{node.op} {node.name or node.outputs[0]!r} has {name} {value!r}")
        return tuple(int(n) for n in numbers)

    def inputs(self, node: Node) -> list[str]:
        """The activations that `node` reads, in order."""
        return [name for name in node.inputs if name in self.source]

    def weight(self, node: Node) -> str | None:
        """The name of the constant that is the second input of `node`; None for an activation."""
        second = node.inputs[1] if len(node.inputs) > 1 else ""
        return None if not second or second in self.source else self.origin.get(second, second)

    def emit(self, node: Node, layer: Layer) -> None:
        """Append the layer whose output `node` puts out, under a name that is still free."""
        if layer.name in self.layers:
            names = (f"{node.outputs[0]}{end}" for end in ("", *map(":{}".format, range(2, 10))))
            free = next((name for name in names if name not in self.layers), None)
            layer = replace(layer, name=free or self.refuse(f"{layer.name!r} is the name of many operators"))
        self.fuse(node, layer)

    def fuse(self, node: Node, layer: Layer) -> None:
        """Put `layer` in the place of the one of its name; `node` now holds its output."""
        self.layers[layer.name] = layer
        self.hold(node.outputs, layer.name)

    def hold(self, values: Sequence[str], name: str) -> None:
        """Note that `values` are the output of the layer `name`, or a view of it; one that nothing reads has no name."""
        self.source.update(dict.fromkeys(filter(None, values), name))
        self.holders.setdefault(name, []).extend(filter(None, values))

    def host(self, node: Node) -> Layer | None:
        """The layer that `node` can be fused into: the one that it reads, if nothing else reads that."""
        name = self.source[self.inputs(node)[0]]
        return self.layers.get(name) if all(self.readers[value] == 1 for value in self.holders[name]) else None

    @cached_property
    def readers(self) -> Counter[str]:
        """How often each value is read."""
        return readers_of(self.graph)


def readers_of(graph: Graph) -> Counter[str]:
    """How often each value is read, by operators and as an output of the network; a look at its shape does not count."""
    reading = [name for node in graph.nodes if node.op not in SHAPE_ONLY for name in node.inputs]
    return Counter([*reading, *graph.outputs])


Handler = Callable[[Draft, Node], None]


def _layer(draft: Draft, node: Node, op: str, read: Callable[[Shape], tuple[int, Size]] = as_map) -> Layer:
    """The layer that the shapes tell of; `read` gives channels and size of a shape."""
    before, weight = draft.inputs(node), draft.weight(node) or ""
    out_channels, out_size = read(draft.shape(node.outputs[0]))
    in_channels, in_size = read(draft.shape(before[0]))
    name = node.name or node.outputs[0]
    if weight.endswith(".weight"):  # in our networks a layer is a module that holds `conv` and `norm`
        name = weight.removesuffix(".weight").removesuffix(".conv")
    return Layer(name, op, tuple(draft.source[n] for n in before), in_channels, out_channels, in_size, out_size)


def unknown(draft: Draft, node: Node) -> None:
    """Anything without a handler: its own name is the operation."""
    draft.emit(node, _layer(draft, node, node.op))


def _view(draft: Draft, node: Node) -> None:
    """Nothing is computed: the outputs hold what the node reads."""
    draft.hold(node.outputs, draft.source[draft.inputs(node)[0]])


def _transpose(draft: Draft, node: Node) -> None:
    """Groups and the channels in them that change places are a channel shuffle; anything else is a view."""
    if node.attributes.get("perm") != (0, 2, 1, 3, 4):
        return _view(draft, node)
    _, groups, depth, height, width = draft.shape(draft.inputs(node)[0])
    channels, size, name = groups * depth, (height, width), node.name or node.outputs[0]
    source = draft.source[draft.inputs(node)[0]]
    draft.emit(node, Layer(name, "shuffle", (source,), channels, channels, size, size, groups=groups))


def _weighted(draft: Draft, node: Node, weight: str, layer: Layer) -> None:
    """A layer with a weight of its own; one that shares it with another cannot be counted by itself."""
    if weight in draft.claimed:
        layer = replace(layer, op=f"shared {node.op}", name=node.outputs[0])
    draft.claimed.add(weight)
    draft.emit(node, layer)


def _conv(draft: Draft, node: Node) -> None:
    weight = draft.weight(node)
    if weight is None or len(draft.shape(node.inputs[1])) != 4:
        return unknown(draft, node)
    (filters, depth, *kernel), groups = draft.shape(node.inputs[1]), draft.ints(node, "group", 1)[0]
    layer = _layer(draft, node, "conv")
    if (layer.out_channels, layer.in_channels) != (filters, depth * groups) or filters % groups:
        weights = f"weights {draft.shape(node.inputs[1])} in {groups} groups"
        draft.refuse(f"{layer.name!r} maps {layer.in_channels} channels to {layer.out_channels} with {weights}")
    layer = replace(layer, kernel=_pair(kernel), stride=_sizes(draft, node, "strides"), groups=groups)
    _weighted(draft, node, weight, replace(layer, bias=_has(node, 2)))


def _gemm(draft: Draft, node: Node) -> None:
    weight = draft.weight(node)
    if weight is None or node.attributes.get("transA"):
        return unknown(draft, node)
    _weighted(draft, node, weight, replace(_layer(draft, node, "linear", features_last), bias=_has(node, 2)))


def _matmul(draft: Draft, node: Node) -> None:
    """A product with a constant matrix is a linear layer; its bias is added by the next operator."""
    weight = draft.weight(node)
    if weight is None or len(draft.shape(node.inputs[1])) != 2:
        return draft.emit(node, _operands(draft, node, _layer(draft, node, "matmul", features_last)))
    _weighted(draft, node, weight, _layer(draft, node, "linear", features_last))


def _add(draft: Draft, node: Node) -> None:
    host, constants = draft.host(node), [n for n in node.inputs if n not in draft.source]
    plain = host is not None and host.op == "linear" and not (host.bias or host.norm or host.act)
    if host and plain and constants and draft.shape(constants[0]) == (host.out_channels,):
        return draft.fuse(node, replace(host, bias=True))
    _elementwise("add")(draft, node)


def _elementwise(op: str) -> Handler:
    """Operands may be broadcast: the operation works at the size of its output."""

    def handle(draft: Draft, node: Node) -> None:
        layer = _operands(draft, node, _layer(draft, node, op))
        draft.emit(node, replace(layer, in_channels=layer.out_channels, in_size=layer.out_size))

    return handle


def _operands(draft: Draft, node: Node, layer: Layer) -> Layer:
    """Count the constants among the operands as parameters; single numbers are none."""
    for name in node.inputs:
        if name not in draft.source and name and draft.shape(name):
            channels, size = as_map(draft.shape(name))
            draft.layers.setdefault(name, Layer(name, "parameter", (), channels, channels, size, size))
            draft.hold([name], name)
    return replace(layer, inputs=tuple(draft.source[n] for n in node.inputs if n in draft.source))


def _joined(op: str) -> Handler:
    return lambda draft, node: draft.emit(node, _operands(draft, node, _layer(draft, node, op)))


def _plain(op: str) -> Handler:
    return lambda draft, node: draft.emit(node, _layer(draft, node, op))


def _batch_norm(draft: Draft, node: Node) -> None:
    host = draft.host(node)
    if host and host.op in ("conv", "linear") and not (host.norm or host.act):
        return draft.fuse(node, replace(host, norm=True))
    draft.emit(node, replace(_layer(draft, node, "norm"), norm=True))


def _layer_norm(read: Callable[[Shape], tuple[int, Size]]) -> Handler:
    def handle(draft: Draft, node: Node) -> None:
        layer = _layer(draft, node, "layernorm", read)
        if draft.weight(node) is None or draft.shape(node.inputs[1]) != (layer.out_channels,):
            return unknown(draft, node)
        draft.emit(node, replace(layer, norm=True, bias=_has(node, 2)))

    return handle


def _act(name: str) -> Handler:
    def handle(draft: Draft, node: Node) -> None:
        host = draft.host(node)
        if host and host.op in FUSES_ACT and not host.act:
            return draft.fuse(node, replace(host, act=name))
        draft.emit(node, replace(_layer(draft, node, "act"), act=name))

    return handle


def _clip(draft: Draft, node: Node) -> None:
    """Bounds are attributes up to opset 10, then inputs."""
    given = [draft.graph.tensors[n].item() if n in draft.graph.tensors else None for n in (*node.inputs[1:], "", "")[:2]]
    bounds = (node.attributes.get("min", given[0]), node.attributes.get("max", given[1]))
    (_act(_CLIPS[bounds]) if bounds in _CLIPS else _plain("elementwise"))(draft, node)


def _pool(op: str) -> Handler:
    """Average pooling down to one pixel is global and has no window, whatever the operator was told."""

    def handle(draft: Draft, node: Node) -> None:
        layer = _layer(draft, node, op)
        if op == "avgpool" and layer.out_size == (1, 1):
            return draft.emit(node, replace(layer, op="pool"))
        draft.emit(node, replace(layer, kernel=_sizes(draft, node, "kernel_shape"), stride=_sizes(draft, node, "strides")))

    return handle


def _sizes(draft: Draft, node: Node, attribute: str) -> Size:
    """Two sizes, which are 1 where the operator does not give them."""
    return _pair(draft.ints(node, attribute, (1, 1)))


def _pair(sizes: Sequence[int]) -> Size:
    return (sizes[0], sizes[-1])


def _has(node: Node, i: int) -> bool:
    return len(node.inputs) > i and bool(node.inputs[i])


_CLIPS = {(0.0, 6.0): "relu6", (0.0, None): "relu", (-1.0, 1.0): "hardtanh"}
_ACTS = {
    "Relu": "relu",
    "HardSwish": "hardswish",
    "HardSigmoid": "hardsigmoid",
    "Swish": "silu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Gelu": "gelu",
    "Elu": "elu",
    "LeakyRelu": "leaky_relu",
    "Mish": "mish",
    "Softplus": "softplus",
}
_VIEWS = "Identity Dropout Flatten Reshape Squeeze Unsqueeze Expand Cast Split Slice Gather".split()

OPERATORS: dict[str, Handler] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm(features_last),
    "GroupNormalization": _layer_norm(as_map),
    "Add": _add,
    "Sub": _elementwise("add"),
    "Clip": _clip,
    "Transpose": _transpose,
    "Concat": _joined("concat"),
    "Softmax": _plain("softmax"),
    "Pad": _plain("pad"),
    **dict.fromkeys(("Mul", "Div"), _elementwise("mul")),
    **dict.fromkeys(("Neg", "Abs", "Pow", "Exp", "Sqrt", "Reciprocal", "Erf"), _elementwise("elementwise")),
    **dict.fromkeys(("Resize", "Upsample"), _plain("resize")),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean"), _pool("avgpool")),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), _pool("maxpool")),
    **{op: _act(name) for op, name in _ACTS.items()},
    **dict.fromkeys(_VIEWS, _view),
}
