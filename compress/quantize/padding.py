"""Channels between two convolutions of integers, filled up with zeros to a number that kernels gather quickly.

Integer kernels copy the inputs of each output run by run, as many bytes at a time as there are channels: 6 or 10 take half as
long again as 8 or 12. Filters of zeros that are read with weights of zero change no sum.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from compress.quantize.graph import FUSED, Node

aten, ops = torch.ops.aten, torch.ops.quantized_decomposed
BLOCK = 4
_BETWEEN = {ops.quantize_per_tensor.default, ops.dequantize_per_tensor.default, aten.clamp.default, *FUSED}


def pad_channels(module: fx.GraphModule) -> None:
    """Fill up, in place, the channels that one convolution writes and only another one reads, to a multiple of BLOCK."""
    for reader in module.graph.nodes:
        writer = _only_writer(reader)
        if writer is None:
            continue
        weight = _stored(module, reader.args[1])
        missing = -weight.shape[1] % BLOCK
        if missing:
            _replace(module, reader.args[1], 0, F.pad(weight, (0, 0, 0, 0, 0, missing)))
            for constant in writer.args[1:3]:
                _pad_outputs(module, constant, missing)


def _only_writer(reader: Node) -> Node | None:
    """The convolution whose output `reader` alone reads, rounded; None where it is not as simple as that."""
    if not _is_plain(reader):
        return None
    node, rounded = reader.args[0], False
    while node.target in _BETWEEN and len(node.users) == 1:
        rounded = rounded or node.target is ops.quantize_per_tensor.default
        node = node.args[0]
    return node if rounded and _is_plain(node) and len(node.users) == 1 else None


def _is_plain(node: Node) -> bool:
    """Whether it is a convolution of one group with integer weights and an integer bias, if any, that no other layer has."""
    if node.target is not aten.conv2d.default or (len(node.args) > 6 and node.args[6] != 1):
        return False
    constants = [given for given in node.args[1:3] if given is not None]
    return all(given.target is ops.dequantize_per_channel.default and len(given.users) == 1 for given in constants)


def _pad_outputs(module: fx.GraphModule, constant: Node | None, missing: int) -> None:
    """More rows: integers and zero points of zero, and the last scale, which is to the bias as it is to the weights."""
    if constant is None:
        return
    integers, scales, zeros = (_stored(module, constant, place) for place in range(3))
    rows = [integers.new_zeros(missing, *integers.shape[1:]), scales[-1:].expand(missing), zeros.new_zeros(missing)]
    for place, (stored, more) in enumerate(zip((integers, scales, zeros), rows, strict=True)):
        _replace(module, constant, place, torch.cat([stored, more]))


def _stored(module: fx.GraphModule, constant: Node, place: int = 0) -> Tensor:
    return module.get_buffer(str(constant.args[place].target))


def _replace(module: fx.GraphModule, constant: Node, place: int, tensor: Tensor) -> None:
    module.register_buffer(str(constant.args[place].target), tensor)
