"""What multiplies: convolutions, linear layers, matrix products and attention, as modules and as functions, in a plan."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from torch import fx

from nas.cost.trace_draft import (
    Draft,
    Handler,
    along,
    arguments,
    as_map,
    features_last,
    layer_of,
    own,
    pair,
    sequence,
    solid,
    unknown,
    volume,
)
from nas.plan import Layer

# by the dimensions of the weight: what reads shapes, (1, C, L), (1, C, H, W) or (1, C, D, H, W), and what reads windows
CONVOLUTIONS = {3: (sequence, along), 4: (as_map, pair), 5: (volume, solid)}


def conv(op: str) -> Handler:
    """A convolution, or a transposed one."""

    def handle(draft: Draft, node: fx.Node) -> None:
        module: Any = draft.module(node)
        window = (module.kernel_size, module.stride)
        layer = _convolution(draft, node, op, len(window[0]) + 2, window, draft.inputs(node)[:1])
        if layer is None:
            return unknown(draft, node)
        name = layer.name.removesuffix(".conv")  # in our networks a layer is a module that holds `conv` and `norm`
        draft.emit(node, replace(layer, name=name, bias=module.bias is not None, groups=module.groups))

    return handle


def conv_function(op: str) -> Handler:
    """A convolution by function, as the classes of other libraries that derive from nn.Conv2d call it.

    Its filters may also be a buffer, be read by others, or be computed: then it reads them like its input.
    """
    middle = ("output_padding", "groups", "dilation") if op == "conv_transpose" else ("dilation", "groups")
    names = ("input", "weight", "bias", "stride", "padding", *middle)

    def handle(draft: Draft, node: fx.Node) -> None:
        given = arguments(node, names)
        weight = draft.shapes.get(given["weight"], ())
        window = (weight[2:], given.get("stride", 1))
        layer = _convolution(draft, node, op, len(weight), window, [given["input"]])
        if layer is None:
            return unknown(draft, node)
        layer = replace(layer, groups=given.get("groups", 1))
        found = _weights(draft, given, "weight", "bias")  # only a layer takes its weights: what is unknown reads them
        if found:
            name = _owner(found[0]).removesuffix(".conv")
            return draft.emit(node, replace(layer, name=name, bias=len(found) > 1))
        read = [given[name] for name in ("input", "weight", "bias") if given.get(name) in draft.source]
        draft.emit(node, replace(layer, own=False, inputs=tuple(draft.source[n] for n in read)))

    return handle


def _convolution(  # noqa: PLR0913, PLR0917 - what modules and functions have in common
    draft: Draft, node: fx.Node, op: str, dims: int, window: tuple[Any, Any], before: Sequence[fx.Node]
) -> Layer | None:
    """A convolution of these dimensions with kernel and stride; None for an image without its batch."""
    if dims not in CONVOLUTIONS or len(draft.shapes[node]) != dims:
        return None
    read, sides = CONVOLUTIONS[dims]
    kernel, stride = map(sides, window)
    return replace(layer_of(draft, node, op, read, before), kernel=kernel, stride=stride)


def linear(draft: Draft, node: fx.Node) -> None:
    """A linear layer."""
    module: Any = draft.module(node)
    draft.emit(node, replace(layer_of(draft, node, "linear", features_last), bias=module.bias is not None))


def linear_function(draft: Draft, node: fx.Node) -> None:
    """A linear layer by function, as the classes of other libraries that derive from nn.Linear call it, or a product."""
    given = arguments(node, ("input", "weight", "bias"))
    found = _weights(draft, given, "weight", "bias")
    if not found:
        return product(draft, node)
    layer = layer_of(draft, node, "linear", features_last, [given["input"]])
    draft.emit(node, replace(layer, name=_owner(found[0]), bias=len(found) > 1))


def product(draft: Draft, node: fx.Node) -> None:
    """A matrix product contracts the last axis of its first operand."""
    draft.emit(node, layer_of(draft, node, "matmul", features_last))


def einsum(draft: Draft, node: fx.Node) -> None:
    """A product of two tensors that sums over the letters that its output lacks; anything else is unknown."""
    equation, *operands = node.args
    match = _EQUATION.fullmatch(str(equation).replace(" ", ""))
    nodes = [n for n in operands if isinstance(n, fx.Node)]
    if match is None or len(nodes) != 2:
        return unknown(draft, node)
    sizes: dict[str, int] = {}
    for letter, size in zip(match[1] + match[2], (*draft.shapes[nodes[0]], *draft.shapes[nodes[1]]), strict=True):
        sizes[letter] = max(size, sizes.get(letter, 1))  # one of the two may be broadcast
    summed = [size for letter, size in sizes.items() if letter not in match[3]]
    if not summed:
        return unknown(draft, node)
    draft.emit(node, replace(layer_of(draft, node, "matmul", features_last), in_channels=prod(summed)))


def attention(draft: Draft, node: fx.Node) -> None:
    """Queries (..., L, E), keys (..., S, E), values (..., S, V): heads are channels."""
    given = arguments(node, ("query", "key", "value"))
    operands = [given.get(name) for name in ("query", "key", "value")]
    if not all(isinstance(n, fx.Node) for n in operands):
        return unknown(draft, node)
    query, key, value = (draft.shapes[n] for n in operands if n is not None)
    heads = prod(query[:-2])
    layer = replace(layer_of(draft, node, "attention"), in_channels=heads * query[-1], out_channels=heads * value[-1])
    draft.emit(node, replace(layer, in_size=(key[-2], 1), out_size=(query[-2], 1)))


def self_attention(draft: Draft, node: fx.Node) -> None:
    """Input projection, attention, output projection; anything else than plain self-attention is unknown."""
    module: Any = draft.module(node)
    extras = module.bias_k is not None or module.add_zero_attn or module.in_proj_weight is None
    if len(draft.inputs(node)) != 1 or extras:
        return unknown(draft, node)
    layer = layer_of(draft, node, "linear", features_last)
    name, width = layer.name, layer.in_channels
    inner = replace(layer, name=f"{name}.in_proj", out_channels=3 * width, bias=module.in_proj_bias is not None)
    draft.emit(node, inner)
    draft.emit(node, replace(layer, name=f"{name}.attention", op="attention", inputs=(draft.source[node],)))
    outer = replace(layer, name=f"{name}.out_proj", inputs=(draft.source[node],), bias=module.out_proj.bias is not None)
    draft.emit(node, outer)


def windows(draft: Draft, node: fx.Node) -> None:
    """Attention in windows, which torchvision tells torch.fx to leave whole (Swin Transformer, Liu et al. 2021).

    Maps (1, H, W, C) are padded to whole windows; projections and attention see the padding, too.
    """
    given = inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments  # type: ignore[arg-type]
    image = given["input"]
    biased = [isinstance(given.get(name), fx.Node) for name in ("qkv_bias", "proj_bias")]
    found = _weights(draft, given, "qkv_weight", "proj_weight", "qkv_bias", "proj_bias")
    if not found:
        return unknown(draft, node)
    _, *sides, channels = draft.shapes[image]
    padded = [-(-side // window) * window for side, window in zip(sides, given["window_size"], strict=True)]
    seen, tokens = prod(given["window_size"]), (prod(padded), 1)
    inner = Layer(_owner(found[0]), "linear", (draft.source[image],), channels, 3 * channels, tokens, tokens, bias=biased[0])
    heads = channels * tokens[0] // seen
    middle = Layer(f"{inner.name}.attention", "attention", (inner.name,), heads, heads, (seen, 1), (seen, 1))
    outer = Layer(_owner(found[1]), "linear", (middle.name,), channels, channels, tokens, tokens, bias=biased[1])
    for layer in (inner, middle, outer):
        draft.emit(node, layer)


# -- arguments

_EQUATION = re.compile(r"([A-Za-z]+),([A-Za-z]+)->([A-Za-z]+)")


def _weights(draft: Draft, given: Mapping[str, Any], *names: str) -> list[fx.Node]:
    """Those of the arguments that are tensors, all of them parameters of this layer alone; empty if they are not."""
    nodes = [given[name] for name in names if isinstance(given.get(name), fx.Node)]
    taken = bool(nodes) and all(n in draft.source for n in nodes) and own(draft, nodes, *["parameter"] * len(nodes))
    return nodes if taken else []


def _owner(weight: fx.Node) -> str:
    """The module of a weight; a parameter of another name has that one."""
    return str(weight.target).removesuffix(".weight")
