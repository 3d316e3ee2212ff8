"""An ONNX graph from a plan, with random weights: the fast way to a network, or a part of one, that is only timed.

It has the operations that torch.onnx.export gives for the same network after batch norms are folded into convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from nas.errors import InvalidSetting
from nas.onnx_values import Graph, Node
from nas.plan import INPUT, Layer, Plan, Size
from nas.runtimes.runtime import SEED
from nas.seeding import numpy_rng

IMAGES = "images"


def onnx_bytes(plan: Plan, batch: int = 1) -> bytes:
    """Write `plan` as an ONNX model with the input `images` (batch, C, H, W). The weights depend on the plan alone.

    Raises InvalidSetting naming the first layer that has no ONNX operation here.
    """
    from nas.onnx_io import to_bytes  # onnx is slow to import

    draft = _Draft({INPUT: IMAGES})
    for layer in plan.layers:
        if layer.op not in WRITERS or layer.act not in ACTS:
            what = f"{layer.op} {layer.act}".strip()
            raise InvalidSetting(f"layer {layer.name!r} ({what}) cannot be written as ONNX; known are {', '.join(WRITERS)}")
        names = [draft.names[name] for name in layer.inputs]
        draft.activate(layer, WRITERS[layer.op](draft, layer, names))
    shape = (batch, plan.input_channels, *plan.input_size)
    return to_bytes(Graph(tuple(draft.nodes), draft.tensors, {IMAGES: shape}, (draft.names[plan.layers[-1].name],)))


def padding(layer: Layer) -> Size:
    """Zeros on each side that give the layer its output size: half the kernel, or else as few as possible."""
    return _pad(layer, 0), _pad(layer, 1)


def _pad(layer: Layer, axis: int) -> int:
    size, kernel, stride, wanted = layer.in_size[axis], layer.kernel[axis], layer.stride[axis], layer.out_size[axis]
    for pad in (kernel // 2, *range(kernel)):
        if (size + 2 * pad - kernel) // stride + 1 == wanted:
            return pad
    raise InvalidSetting(f"layer {layer.name!r} ({layer.op}) maps {size} to {wanted} pixels, which its window cannot")


def margins(layer: Layer) -> tuple[Size, Size, Size]:
    """Zeros before and after the channels, the rows and the columns, of an operation that pads alone: half on each side."""
    grown = [layer.out_channels - layer.in_channels]
    grown += [wanted - size for size, wanted in zip(layer.in_size, layer.out_size, strict=True)]
    channels, rows, columns = ((n // 2, n - n // 2) for n in grown)
    return channels, rows, columns


@dataclass
class _Draft:
    """A graph in the making; `names` are the values that hold the layers' outputs."""

    names: dict[str, str]
    nodes: list[Node] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, op: str, inputs: Sequence[str], **attributes: int | float | tuple[int, ...]) -> str:
        """Append a node; gives the name of its output."""
        output = f"v{len(self.nodes)}"
        self.nodes.append(Node(op, tuple(inputs), (output,), attributes))
        return output

    def tensor(self, shape: tuple[int, ...], fan_in: int) -> str:
        """A tensor of normal numbers that keep the variance of activations (He et al. 2015): no zeros, no denormals."""
        name = f"w{len(self.tensors)}"
        values = numpy_rng(SEED, "weights", len(self.tensors)).standard_normal(shape, dtype=np.float32)
        self.tensors[name] = values * np.float32((2 / fan_in) ** 0.5)
        return name

    def numbers(self, values: Sequence[int]) -> str:
        """A constant of whole numbers."""
        name = f"w{len(self.tensors)}"
        self.tensors[name] = np.array(values, dtype=np.int64)
        return name

    def activate(self, layer: Layer, value: str) -> None:
        """Append the layer's activation and note where its output is."""
        self.names[layer.name] = ACTS[layer.act](self, value)


Writer = Callable[[_Draft, Layer, list[str]], str]


def _conv(draft: _Draft, layer: Layer, inputs: list[str]) -> str:
    group_channels = layer.in_channels // layer.groups
    weight = draft.tensor((layer.out_channels, group_channels, *layer.kernel), group_channels * prod(layer.kernel))
    bias = draft.tensor((layer.out_channels,), 100)
    pads = 2 * padding(layer)
    return draft.add(
        "Conv", (*inputs, weight, bias), kernel_shape=layer.kernel, strides=layer.stride, group=layer.groups, pads=pads
    )


def _linear(draft: _Draft, layer: Layer, inputs: list[str]) -> str:
    if prod(layer.out_size) > 1:
        raise InvalidSetting(f"layer {layer.name!r} is linear over {prod(layer.out_size)} positions, which cannot be timed")
    weight = draft.tensor((layer.out_channels, layer.in_channels), layer.in_channels)
    bias = draft.tensor((layer.out_channels,), 100)
    return draft.add("Gemm", (draft.add("Flatten", inputs), weight, bias), transB=1)


def _pooled(op: str) -> Writer:
    return lambda draft, layer, inputs: draft.add(
        op, inputs, kernel_shape=layer.kernel, strides=layer.stride, pads=2 * padding(layer)
    )


def _global_pool(draft: _Draft, layer: Layer, inputs: list[str]) -> str:
    return draft.add("ReduceMean", (*inputs, draft.numbers((2, 3))), keepdims=1)


def _zero_pad(draft: _Draft, layer: Layer, inputs: list[str]) -> str:
    before, after = zip((0, 0), *margins(layer), strict=True)
    return draft.add("Pad", (*inputs, draft.numbers((*before, *after))))


def _shuffle(draft: _Draft, layer: Layer, inputs: list[str]) -> str:
    """Channel shuffle (Zhang et al. 2018, ShuffleNet)."""
    height, width = layer.out_size
    split = draft.numbers((0, layer.groups, layer.out_channels // layer.groups, height, width))
    apart = draft.add("Transpose", (draft.add("Reshape", (*inputs, split)),), perm=(0, 2, 1, 3, 4))
    return draft.add("Reshape", (apart, draft.numbers((0, layer.out_channels, height, width))))


def _norm(draft: _Draft, layer: Layer, inputs: list[str]) -> str:
    """A batch norm that follows no convolution, as a scale and a shift."""
    scaled = draft.add("Mul", (*inputs, draft.tensor((1, layer.out_channels, 1, 1), 2)))
    return draft.add("Add", (scaled, draft.tensor((1, layer.out_channels, 1, 1), 100)))


def _plain(op: str, **attributes: int) -> Writer:
    return lambda draft, layer, inputs: draft.add(op, inputs, **attributes)


def _folded(op: str) -> Writer:
    """An operation of two operands over any number of them; of one, with itself."""

    def write(draft: _Draft, layer: Layer, inputs: list[str]) -> str:
        value = inputs[0]
        for other in inputs[1:] or inputs:
            value = draft.add(op, (value, other))
        return value

    return write


WRITERS: dict[str, Writer] = {
    "conv": _conv,
    "linear": _linear,
    "pool": _global_pool,
    "avgpool": _pooled("AveragePool"),
    "maxpool": _pooled("MaxPool"),
    "add": _folded("Add"),
    "mul": _folded("Mul"),
    "concat": _plain("Concat", axis=1),
    "shuffle": _shuffle,
    "pad": _zero_pad,
    "norm": _norm,
    "softmax": _plain("Softmax", axis=1),
    "act": lambda draft, layer, inputs: inputs[0],
}


def _clip(low: float, high: float) -> Callable[[_Draft, str], str]:
    def write(draft: _Draft, value: str) -> str:
        bounds = []
        for bound in (low, high):
            bounds.append(f"w{len(draft.tensors)}")
            draft.tensors[bounds[-1]] = np.array(bound, dtype=np.float32)
        return draft.add("Clip", (value, *bounds))

    return write


def _gated(op: str, **attributes: float) -> Callable[[_Draft, str], str]:
    """The input times a function of it."""
    return lambda draft, value: draft.add("Mul", (value, draft.add(op, (value,), **attributes)))


def _simple(op: str, **attributes: float) -> Callable[[_Draft, str], str]:
    return lambda draft, value: draft.add(op, (value,), **attributes)


ACTS: dict[str, Callable[[_Draft, str], str]] = {
    "": lambda draft, value: value,
    "relu": _simple("Relu"),
    "relu6": _clip(0.0, 6.0),
    "hardtanh": _clip(-1.0, 1.0),
    "hardswish": _simple("HardSwish"),
    "hardsigmoid": _simple("HardSigmoid", alpha=1 / 6, beta=0.5),
    "silu": _gated("Sigmoid"),
    "sigmoid": _simple("Sigmoid"),
    "tanh": _simple("Tanh"),
    "gelu": _simple("Gelu"),
    "elu": _simple("Elu"),
    "leaky_relu": _simple("LeakyRelu"),
    "mish": _simple("Mish"),
    "softplus": _simple("Softplus"),
}
