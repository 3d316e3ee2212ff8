"""From a simulated network to one with integers: int8 weights, and the quantize and dequantize operations of PT2E and ONNX."""

from __future__ import annotations

import copy
from typing import TypeGuard

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401 - registers torch.ops.quantized_decomposed
from torch import Tensor, fx

from compress.quantize import stem
from compress.quantize.graph import FUSED, Network, Node
from compress.quantize.quantizer import IntQuantizer
from compress.quantize.simulate import POINTS, point_quantizer_of, weight_quantizer_of

ops = torch.ops.quantized_decomposed
_CONTAINER = 8


def converted(module: fx.GraphModule, network: Network) -> fx.GraphModule:
    """A copy of a simulated module that stores weights and biases as integers and rounds activations to them.

    What has more than 8 bits, or is a floating-point format, stays simulated. Runs on the CPU, in float32 between the
    operations; runtimes fuse them to integer kernels.
    """
    found = copy.deepcopy(module).cpu().eval()
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    nodes = {node.name: node for node in found.graph.nodes}
    for point in network.points:
        quantizer = point_quantizer_of(found, point)
        if _is_integer(quantizer):
            _round_point(found, f"{POINTS}.{point}", quantizer)
    for layer in network.layers:
        quantizer = weight_quantizer_of(found, layer.node)
        if _is_integer(quantizer):
            _store_weight(found, nodes[layer.node], quantizer, nodes[layer.source])
            source = point_quantizer_of(module, layer.source)
            if _is_integer(source):
                _store_bias(found, nodes[layer.node], source.scale.detach().cpu() * quantizer.scale.detach())
    found.graph.eliminate_dead_code()
    found.delete_all_unused_submodules()
    found.recompile()
    return found


def _is_integer(quantizer: object) -> TypeGuard[IntQuantizer]:
    return isinstance(quantizer, IntQuantizer) and quantizer.high - quantizer.low < 1 << _CONTAINER


def _round_point(module: fx.GraphModule, place: str, quantizer: IntQuantizer) -> None:
    rounded = next(node for node in module.graph.nodes if node.op == "call_module" and node.target == place)
    scale, zero = quantizer.scale.item(), int(quantizer.zero_point.item())
    low, high = quantizer.low, quantizer.high
    _drop_activation(rounded, (low - zero) * scale, (high - zero) * scale)
    given = rounded.args[0]
    with module.graph.inserting_before(rounded):
        if high < (1 << _CONTAINER) - 1:  # the container holds more than the format
            given = module.graph.call_function(
                torch.ops.aten.clamp.default, (given, (low - zero) * scale, (high - zero) * scale)
            )
        args = (scale, zero, 0, (1 << _CONTAINER) - 1, torch.uint8)
        stored = module.graph.call_function(ops.quantize_per_tensor.default, (given, *args))
        back = module.graph.call_function(ops.dequantize_per_tensor.default, (stored, *args))
    rounded.replace_all_uses_with(back)
    module.graph.erase_node(rounded)


def _drop_activation(rounded: Node, low: float, high: float) -> None:
    """Leave out a ReLU or clip that keeps all that the integers can hold: rounding clips in its place."""
    node = rounded.args[0]
    if node.target not in FUSED or len(node.users) != 1:
        return
    bounds = node.args[1:3] if node.target is not torch.ops.aten.relu.default else (0.0, None)
    if node.target is torch.ops.aten.hardtanh.default and len(node.args) < 3:
        bounds = (-1.0, 1.0)
    if node.target is torch.ops.aten.relu6.default:
        bounds = (0.0, 6.0)
    least, most = (*bounds, None, None)[:2]
    if (least is None or least <= low) and (most is None or high <= most):
        rounded.replace_input_with(node, node.args[0])


def _store_weight(module: fx.GraphModule, node: Node, quantizer: IntQuantizer, source: Node) -> None:
    rounded = node.args[1]
    weight = module.get_parameter(str(rounded.args[0].target)).detach()
    scale = quantizer.scale.detach().clamp_min(1e-8)
    shape = (-1, *(1 for _ in weight.shape[1:]))
    integers = (weight / scale.reshape(shape)).round().clamp(quantizer.low, quantizer.high).to(torch.int8)
    if stem.suits(node, integers, source):
        stride, padding = node.args[3][0], tuple(node.args[4]) if len(node.args) > 4 else (0, 0)
        stem.rearrange(module, node, (weight.shape[2], weight.shape[3]), tuple(source.meta["val"].shape[1:]))
        integers = stem.rearranged_weight(integers, stride, padding)
    back = _constant(module, node, f"{node.name}_weight", integers, scale)
    node.replace_input_with(rounded, back)


def _store_bias(module: fx.GraphModule, node: Node, scale: Tensor) -> None:
    """As 32-bit integers in the scale of what the kernel accumulates."""
    if len(node.args) < 3 or node.args[2] is None:
        return
    bias = module.get_parameter(str(node.args[2].target)).detach()
    limit = 2.0**31 - 1
    integers = (bias.double() / scale.double()).round().clamp(-limit, limit).to(torch.int32)
    node.replace_input_with(node.args[2], _constant(module, node, f"{node.name}_bias", integers, scale))


def _constant(module: fx.GraphModule, before: Node, name: str, integers: Tensor, scale: Tensor) -> Node:
    """Integers and their scales, a channel each, as buffers, and the operation that multiplies them."""
    stored = f"{name}_integers", f"{name}_scales", f"{name}_zeros"
    for place, tensor in zip(
        stored, (integers, scale.float().clone(), torch.zeros(len(scale), dtype=integers.dtype)), strict=True
    ):
        module.register_buffer(place, tensor)
    limits = torch.iinfo(integers.dtype)
    with module.graph.inserting_before(before):
        values = [module.graph.get_attr(place) for place in stored]
        return module.graph.call_function(
            ops.dequantize_per_channel.default, (*values, 0, limits.min, limits.max, integers.dtype)
        )
