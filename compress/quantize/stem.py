"""A first convolution that integer kernels are quick at: few channels in many steps become more channels in fewer.

Integer kernels gather the inputs of each output run by run, as many bytes at a time as there are channels: an image has 3.
Moving each 2x2 square of pixels into the channels (space to depth) makes a convolution of stride 2 one of stride 1 with 12
channels and half the kernel: exactly the same sums. Zeros that are put around the image before, one-sided ones too, go along.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from compress.quantize.graph import Node
from compress.quantize.rewrites import is_zero_padding

aten = torch.ops.aten
FEW_CHANNELS = 4
# zeros before and after each axis: rows, columns
Padding = tuple[tuple[int, int], tuple[int, int]]
# stride, padding, dilation, groups
_DEFAULTS: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], 1)


def suits(node: Node, weight: Tensor, source: Node) -> bool:
    """Whether `node` is a convolution of few channels of `source`, with a stride that divides the sides of the image."""
    if node.target is not aten.conv2d.default or weight.shape[1] > FEW_CHANNELS:
        return False
    given = list(node.args[3:])
    stride, _, dilation, groups = given + list(_DEFAULTS[len(given) :])
    value = unpadded(source).meta.get("val")
    sides = tuple(value.shape[2:]) if isinstance(value, Tensor) else ()
    one = stride[0] == stride[1] > 1 and tuple(dilation) == (1, 1) and groups == 1
    return one and len(sides) == 2 and all(isinstance(side, int) and side % stride[0] == 0 for side in sides)


def unpadded(source: Node) -> Node:
    """What `source` puts zeros around, or itself."""
    return source.args[0] if is_zero_padding(source) else source


def padding_of(node: Node, source: Node) -> Padding:
    """The zeros around what the convolution `node` reads: its own, and those of `source`, if that puts some there."""
    rows, columns = node.args[4] if len(node.args) > 4 else (0, 0)
    left, right, top, bottom = [*source.args[1], 0, 0, 0, 0][:4] if is_zero_padding(source) else (0, 0, 0, 0)
    return (rows + top, rows + bottom), (columns + left, columns + right)


def rearranged_weight(weight: Tensor, stride: int, padding: Padding) -> Tensor:
    """Weights (O, I, K, K) as (O, stride^2 * I, k, k), with zeros where the kernel does not fill whole squares."""
    rows, columns = (_taps(side, stride, before) for side, (before, _) in zip(weight.shape[2:], padding, strict=True))
    padded = F.pad(weight, (*columns, *rows))
    out, into, height, width = padded.shape
    parts = padded.reshape(out, into, height // stride, stride, width // stride, stride)
    return parts.permute(0, 5, 3, 1, 2, 4).reshape(out, into * stride**2, height // stride, width // stride)


def rearrange(
    module: fx.GraphModule, node: Node, kernel: tuple[int, int], shape: tuple[int, int, int], padding: Padding
) -> None:
    """Let the convolution `node` read squares of the pixels of an image of `shape` as channels.

    Its weights have been rearranged from `kernel`; the image is `padding` larger than `shape` tells.
    """
    stride, source, graph = node.args[3][0], unpadded(node.args[0]), module.graph
    channels, height, width = shape
    pads = [_blocks(side, stride, pad, size) for side, pad, size in zip(kernel, padding, (height, width), strict=True)]
    with graph.inserting_before(node):
        # rows go below each other, and then one axis moves inwards: runtimes that put channels last do both quickly
        steps: list[tuple[Any, list[int]]] = [
            (aten.reshape.default, [-1, channels, height // stride, stride, width]),
            (aten.permute.default, [0, 2, 3, 1, 4]),
            (aten.reshape.default, [-1, height // stride, stride * channels, width]),
            (aten.permute.default, [0, 1, 3, 2]),
            (aten.reshape.default, [-1, height // stride, width // stride, stride**2 * channels]),
            (aten.permute.default, [0, 3, 1, 2]),
        ]
        squares = source
        for operation, sizes in steps:
            squares = graph.call_function(operation, (squares, sizes))
        padded = graph.call_function(aten.constant_pad_nd.default, (squares, [*pads[1], *pads[0]]))
    node.args = (padded, *node.args[1:3], [1, 1], [0, 0])


def _taps(side: int, stride: int, pad: int) -> tuple[int, int]:
    """Zeros before and after the kernel, so that it begins and ends with whole squares."""
    before = -pad % stride
    return before, -(before + side) % stride


def _blocks(side: int, stride: int, pad: tuple[int, int], size: int) -> tuple[int, int]:
    """Squares of padding before and after a side of `size` pixels, for as many outputs as there were; negative ones are cut."""
    before, after = _taps(side, stride, pad[0])
    outputs = (size + sum(pad) - side) // stride + 1
    kernel = (before + side + after) // stride
    first = (pad[0] + before) // stride
    return first, outputs + kernel - 1 - first - size // stride
