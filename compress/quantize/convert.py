"""From a simulated network to one with integers: int8 weights, and the quantize and dequantize operations of PT2E and ONNX."""

from __future__ import annotations

import copy
from typing import Any, TypeGuard

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401 - registers torch.ops.quantized_decomposed
from torch import Tensor, fx

from compress.agreement import INTEGER_TOLERANCE, check_same
from compress.quantize import stem
from compress.quantize.constants import tensor_of
from compress.quantize.gates import gates_as_integers
from compress.quantize.graph import Network, Node
from compress.quantize.padding import pad_channels
from compress.quantize.quantizer import IntQuantizer, PlainQuantizer
from compress.quantize.simulate import POINTS, point_quantizer_of, weight_quantizer_of

aten, ops = torch.ops.aten, torch.ops.quantized_decomposed
_CONTAINER, TINY = 8, 1e-12
# half of what 32 bits hold: the other half is for the products that kernels add to it
_LARGEST_BIAS = 2.0**30
_BOUNDS: dict[Any, tuple[Any, Any]] = {
    aten.relu.default: (0.0, None),
    aten.relu6.default: (0.0, 6.0),
    aten.hardtanh.default: (-1.0, 1.0),
    aten.clamp.default: (None, None),
}


def converted(module: fx.GraphModule, network: Network, images: Tensor | None = None) -> fx.GraphModule:
    """A copy of a simulated module that stores weights and biases as integers and rounds activations to them.

    What has more than 8 bits, or is a floating-point format, stays simulated, by operations that exporters know. Runs on the
    CPU, in float32 between the operations; runtimes fuse them to integer kernels. With `images` (N, C, H, W) the two are
    compared: raises VerificationFailed if they answer otherwise.
    """
    found = copy.deepcopy(module).cpu().eval()
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    nodes, before = ({node.name: node for node in graph.nodes} for graph in (found.graph, network.module.graph))
    for point in network.points:
        quantizer = point_quantizer_of(found, point)
        if _is_integer(quantizer):
            _round_point(found, f"{POINTS}.{point}", quantizer)
    for layer in network.layers:
        quantizer, source = weight_quantizer_of(found, layer.node), point_quantizer_of(found, layer.source)
        if _is_integer(quantizer):
            node, step = nodes[layer.node], source.step.detach() if _is_integer(source) else None
            scale = _scale(found, node, quantizer, step)
            _store_weight(found, node, quantizer, scale, before[layer.node].args[0])
            if step is not None:
                _store_bias(found, node, scale * step)
    for place, quantizer in list(found.named_modules()):
        if isinstance(quantizer, IntQuantizer) and not _is_integer(quantizer):
            found.set_submodule(place, PlainQuantizer(quantizer))
    found.graph.eliminate_dead_code()
    gates_as_integers(found)
    pad_channels(found)
    found.delete_all_unused_submodules()
    found.recompile()
    if images is not None:
        check_same(module, found, images, "the network of integers", _tolerance(module, network, images))
    return found


def _tolerance(module: fx.GraphModule, network: Network, images: Tensor) -> float:
    """What logits of integers may differ by from those that simulate them: twice what rounding moves them, if that is more.

    Sums that are ordered otherwise put values on the edge of two integers to either side, and the layers after carry that on.
    """
    with torch.no_grad():
        rounded, plain = module(images), network.module(images)
    moved = ((rounded - plain).abs().max() / rounded.abs().max().clamp_min(TINY)).item()
    return max(INTEGER_TOLERANCE, 2 * moved)


def _is_integer(quantizer: object) -> TypeGuard[IntQuantizer]:
    return isinstance(quantizer, IntQuantizer) and quantizer.high - quantizer.low < 1 << _CONTAINER


def _round_point(module: fx.GraphModule, place: str, quantizer: IntQuantizer) -> None:
    rounded = next(node for node in module.graph.nodes if node.op == "call_module" and node.target == place)
    scale, zero = quantizer.step.item(), int(quantizer.zero_point.item())
    low, high = quantizer.low, quantizer.high
    _drop_activation(rounded, quantizer)
    given = rounded.args[0]
    with module.graph.inserting_before(rounded):
        if high < (1 << _CONTAINER) - 1:  # the container holds more than the format
            given = module.graph.call_function(aten.clamp.default, (given, (low - zero) * scale, (high - zero) * scale))
        args = (scale, zero, 0, (1 << _CONTAINER) - 1, torch.uint8)
        stored = module.graph.call_function(ops.quantize_per_tensor.default, (given, *args))
        back = module.graph.call_function(ops.dequantize_per_tensor.default, (stored, *args))
    rounded.replace_all_uses_with(back)
    module.graph.erase_node(rounded)


def _drop_activation(rounded: Node, quantizer: IntQuantizer) -> None:
    """Leave out a ReLU or clip that keeps all that the integers can hold: rounding clips in its place."""
    node = rounded.args[0]
    if node.target not in _BOUNDS or len(node.users) != 1:
        return
    given = list(node.args[1:])
    least, most = given + list(_BOUNDS[node.target][len(given) :])
    # bounds that are rounded to the ends of the integers; a bound itself may differ from an end in the last bit
    step, zero = quantizer.step.item(), quantizer.zero_point.item()
    first = quantizer.low if least is None else round(least / step) + zero
    last = quantizer.high if most is None else round(most / step) + zero
    if first <= quantizer.low and last >= quantizer.high:
        rounded.replace_input_with(node, node.args[0])


def _scale(module: fx.GraphModule, node: Node, quantizer: IntQuantizer, step: Tensor | None) -> Tensor:
    """Scales of the weights, wider where a channel's weights are so small that its bias would not fit into 32 bits."""
    scale, bias = quantizer.step.detach(), _bias(module, node)
    return scale if step is None or bias is None else torch.maximum(scale, bias.abs() / (_LARGEST_BIAS * step))


def _store_weight(module: fx.GraphModule, node: Node, quantizer: IntQuantizer, scale: Tensor, reads: Node) -> None:
    """As 8-bit integers; `reads` is what the layer reads in the network before it was rounded."""
    rounded = node.args[1]
    weight = module.get_parameter(str(rounded.args[0].target)).detach()
    shape = (-1, *(1 for _ in weight.shape[1:]))
    integers = (weight / scale.reshape(shape)).round().clamp(quantizer.low, quantizer.high).to(torch.int8)
    if stem.suits(node, integers, reads):
        stride, padding = node.args[3][0], stem.padding_of(node, reads)
        channels, height, width = stem.unpadded(reads).meta["val"].shape[1:]
        stem.rearrange(module, node, (weight.shape[2], weight.shape[3]), (channels, height, width), padding)
        integers = stem.rearranged_weight(integers, stride, padding)
    back = _constant(module, node, f"{node.name}_weight", integers, scale)
    node.replace_input_with(rounded, back)


def _store_bias(module: fx.GraphModule, node: Node, scale: Tensor) -> None:
    """As 32-bit integers in the scale of what the kernel accumulates."""
    bias = _bias(module, node)
    if bias is not None:
        integers = (bias.double() / scale.double()).round().to(torch.int32)
        node.replace_input_with(node.args[2], _constant(module, node, f"{node.name}_bias", integers, scale))


def _bias(module: fx.GraphModule, node: Node) -> Tensor | None:
    """The bias of a layer; None where it has none, or one that depends on the images."""
    bias = tensor_of(module, node.args[2]) if len(node.args) > 2 else None
    return None if bias is None else bias.detach()


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
