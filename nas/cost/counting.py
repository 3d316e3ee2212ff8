"""Cost of a plan, counted: multiply-adds, parameters, stored size, activations, peak activation memory, bit operations.

The counting rule, which nas/cost/operations.py follows for a run: a multiply-add is one operation, and convolutions, linear
layers, matrix products and attention have them. Batch norm counts nothing, for it folds into the convolution before it.
Biases, pooling, activations, elementwise arithmetic, other norms, concatenation, shuffling, padding and resizing count nothing,
as is usual in the mobile literature. An operation that is not in MACS is unknown and not zero: `Cost.uncounted` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod

from nas.budget import Cost, Metric
from nas.cost.storage import plan_bytes
from nas.plan import INPUT, Layer, Plan


def conv_macs(layer: Layer) -> int:
    """Each output value reads a kernel window of its group's input channels."""
    return layer.out_elements * (layer.in_channels // layer.groups) * prod(layer.kernel)


def transposed_macs(layer: Layer) -> int:
    """Each input value writes a kernel window of its group's output channels (Dumoulin and Visin 2016)."""
    return layer.in_channels * prod(layer.in_size) * (layer.out_channels // layer.groups) * prod(layer.kernel)


def product_macs(layer: Layer) -> int:
    """Each output value reads `in_channels` values: a linear layer, or a matrix product that contracts so many."""
    return layer.out_elements * layer.in_channels


def attention_macs(layer: Layer) -> int:
    """Each pair of query (out_size) and key (in_size) multiplies all channels of keys, then all channels of values."""
    return prod(layer.out_size) * prod(layer.in_size) * (layer.in_channels + layer.out_channels)


def no_macs(layer: Layer) -> int:
    """Count nothing, by the rule above."""
    return 0


MACS: dict[str, Callable[[Layer], int]] = {
    "conv": conv_macs,
    "conv_transpose": transposed_macs,
    "linear": product_macs,
    "matmul": product_macs,
    "attention": attention_macs,
    "composite": lambda layer: layer.inner_macs,
    "add": no_macs,
    "mul": no_macs,
    "elementwise": no_macs,
    "pool": no_macs,
    "avgpool": no_macs,
    "maxpool": no_macs,
    "act": no_macs,
    "softmax": no_macs,
    "norm": no_macs,
    "layernorm": no_macs,
    "concat": no_macs,
    "shuffle": no_macs,
    "pad": no_macs,
    "resize": no_macs,
    "move": no_macs,
    "parameter": no_macs,
    "buffer": no_macs,
    "constant": no_macs,
}


def conv_params(layer: Layer) -> int:
    """Weights, bias, and scale and shift of the batch norm."""
    weights = layer.out_channels * (layer.in_channels // layer.groups) * prod(layer.kernel)
    return weights + layer.out_channels * (layer.bias + 2 * layer.norm)


def transposed_params(layer: Layer) -> int:
    """Weights and bias of a transposed convolution, whose groups part its outputs."""
    weights = layer.in_channels * (layer.out_channels // layer.groups) * prod(layer.kernel)
    return weights + layer.out_channels * layer.bias


def batch_norm_params(layer: Layer) -> int:
    """Scale and shift of a batch norm that follows no convolution."""
    return 2 * layer.out_channels


def layer_norm_params(layer: Layer) -> int:
    """Scale (`norm`) and shift (`bias`) of a layer or group norm, where it has them."""
    return layer.out_channels * (layer.norm + layer.bias)


# the operations of MACS that have parameters; a linear layer is a convolution with a 1x1 kernel
PARAMS: dict[str, Callable[[Layer], int]] = {
    "conv": conv_params,
    "conv_transpose": transposed_params,
    "linear": conv_params,
    "norm": batch_norm_params,
    "layernorm": layer_norm_params,
    "parameter": lambda layer: layer.out_elements,
}

# tensors that the network holds, and does not compute
HELD = frozenset({"parameter", "buffer", "constant"})
# the operations whose outputs count as activations, as in fvcore (Radosavovic et al. 2020, "Designing network design spaces")
ACTIVATIONS = frozenset({"conv", "conv_transpose", "linear", "matmul", "attention"})


def macs(layer: Layer) -> int:
    """Multiply-adds of a layer for one image. Raises KeyError for an operation that is not in MACS."""
    return MACS[layer.op](layer)


def params(layer: Layer) -> int:
    """Parameters of a layer, as many as its modules have, if they are its own."""
    return PARAMS[layer.op](layer) if layer.own and layer.op in PARAMS else 0


def outputs(layer: Layer) -> int:
    """Output elements of the products of a layer, for one image."""
    return layer.out_elements if layer.op in ACTIVATIONS else layer.inner_outputs


def peak_bytes(plan: Plan) -> int:
    """Peak activation memory of one image, in bytes, when the layers run in the plan's order.

    While a layer runs, its inputs, its output and all that a later layer reads are alive; fused norms and activations work
    in place. An output has its layer's `act_bits`, the image those of the first layer that reads it.
    """
    last_reader = {name: i for i, layer in enumerate(plan.layers) for name in layer.inputs}
    alive = {INPUT: _image_bytes(plan)}
    peak = alive[INPUT]
    for i, layer in enumerate(plan.layers):
        # what a layer reads of its own parameters is no activation
        alive[layer.name] = 0 if layer.op in HELD else _in_bytes(layer.out_elements, layer.act_bits)
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_reader.get(name, -1) > i}
    return peak


# what a plan tells, with its unit; bit operations are multiply-adds times the bits of weights and of activations (Wang et al.
# 2019, HAQ), and `size_bytes` is exact for the networks of our spaces (nas/cost/storage.py)
TOTALS: dict[str, tuple[Callable[[Plan], int], str]] = {
    "macs": (lambda plan: sum(map(macs, _known(plan))), "multiply-adds"),
    "params": (lambda plan: sum(map(params, _known(plan))), "parameters"),
    "size_bytes": (plan_bytes, "B"),
    "activations": (lambda plan: sum(map(outputs, _known(plan))), "elements"),
    "peak_bytes": (peak_bytes, "B"),
    "bitops": (lambda plan: sum(macs(x) * x.weight_bits * x.act_bits for x in _known(plan)), "bit operations"),
}


def count(plan: Plan, names: Collection[str] = TOTALS) -> Cost:
    """Count what a plan tells for one image: of TOTALS, those with the given names."""
    metrics = {name: Metric(total(plan), unit, "plan") for name, (total, unit) in TOTALS.items() if name in names}
    return Cost(metrics, tuple(f"{layer.op} ({layer.name})" for layer in plan.layers if layer.op not in MACS))


def _known(plan: Plan) -> list[Layer]:
    return [layer for layer in plan.layers if layer.op in MACS]


def _image_bytes(plan: Plan) -> int:
    bits = next((layer.act_bits for layer in plan.layers if INPUT in layer.inputs), 32)
    return _in_bytes(plan.input_channels * prod(plan.input_size), bits)


def _in_bytes(elements: int, bits: int) -> int:
    return (elements * bits + 7) // 8
