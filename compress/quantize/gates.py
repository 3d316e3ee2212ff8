"""Hard-swish and SiLU between integers, x times a gate from 0 to 1, as sums and products that have integer kernels.

onnxruntime runs both in fp32, and converts before and after; a gate of 8 bits beside x of 8 bits needs half the time. Its
rounding moves what comes out by at most 1/510 of x, about a quarter of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten, ops = torch.ops.aten, torch.ops.quantized_decomposed
Node = Any  # fx.Node, whose arguments have no type that a checker could follow
LEVELS = 255
_STORED = (0, LEVELS, torch.uint8)
_THREE = "_three_integers"


def gates_as_integers(module: fx.GraphModule) -> None:
    """Change, in place, gated activations of a graph of integers that read 8 bits and are rounded to 8 bits."""
    for node in list(module.graph.nodes):
        if node.target in _GATES and _is_between_integers(node):
            with module.graph.inserting_before(node):
                gate = _GATES[node.target](module, node.args[0])
                product = module.graph.call_function(aten.mul.Tensor, (node.args[0], gate))
            node.replace_all_uses_with(product)
            module.graph.erase_node(node)


def _is_between_integers(node: Node) -> bool:
    given = node.args[0]
    read = given.target is ops.dequantize_per_tensor.default and given.args[-1] is torch.uint8
    return read and all(user.target is ops.quantize_per_tensor.default for user in node.users)


def _hard(module: fx.GraphModule, x: Node) -> Node:
    """Clip (x + 3) / 6 to 0..1: rounding clips, and the sixth is that of the scale which the integers are read with."""
    if not hasattr(module, _THREE):
        module.register_buffer(_THREE, torch.full((1,), LEVELS, dtype=torch.uint8))
    stored = module.graph.get_attr(_THREE)
    three = module.graph.call_function(ops.dequantize_per_tensor.default, (stored, 3 / LEVELS, 0, *_STORED))
    total = module.graph.call_function(aten.add.Tensor, (x, three))
    return _rounded(module, total, 6 / LEVELS)


def _soft(module: fx.GraphModule, x: Node) -> Node:
    """The logistic function of x, which is a table of 256 integers."""
    return _rounded(module, module.graph.call_function(aten.sigmoid.default, (x,)), 1 / LEVELS)


def _rounded(module: fx.GraphModule, value: Node, scale: float) -> Node:
    stored = module.graph.call_function(ops.quantize_per_tensor.default, (value, scale, 0, *_STORED))
    return module.graph.call_function(ops.dequantize_per_tensor.default, (stored, 1 / LEVELS, 0, *_STORED))


_GATES: dict[Any, Callable[[fx.GraphModule, Node], Node]] = {aten.hardswish.default: _hard, aten.silu.default: _soft}
