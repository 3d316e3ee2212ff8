"""Exact size of a safetensors file, from the names and shapes of its tensors.

The file is 8 bytes that hold the length of the header, the header, and the payload. The header is compact JSON, padded with
spaces to a multiple of 8; tensors are ordered by type, widest first, then by name (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from nas.errors import InvalidSetting
from nas.plan import Layer, Plan

# types in the order of the library's enumeration, with their bits
BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
_RANK = {name: i for i, name in enumerate(BITS)}
_HELD_TYPE = {64: "I64", 32: "F32", 16: "F16", 8: "U8"}
_WEIGHT_TYPE = {32: "F32", 16: "F16", 8: "I8"}


@dataclass(frozen=True)
class StoredTensor:
    """One entry of a file: name, type (a key of BITS) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the payload."""
        return prod(self.shape) * BITS[self.dtype] // 8


def file_bytes(tensors: Iterable[StoredTensor]) -> int:
    """Size in bytes of the safetensors file that holds `tensors` and no metadata."""
    header: dict[str, object] = {}
    end = 0
    for tensor in sorted(tensors, key=lambda t: (-_RANK[t.dtype], t.name)):
        start, end = end, end + tensor.bytes
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (start, end)}
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + (length + 7) // 8 * 8 + end


def plan_bytes(plan: Plan) -> int:
    """Size in bytes of the stored weights of a plan.

    Exact where modules are named as in our spaces: a convolution `L` holds `L.conv` and `L.norm`, a linear layer is `L`
    itself. In a foreign module other names make the header some bytes longer or shorter; recount gives its exact size.
    Weights of 32, 16 and 8 bits have their own type, those of other widths are packed; biases and norms stay 32 bits.
    """
    return file_bytes(tensor for layer in plan.layers for tensor in layer_tensors(layer))


def layer_tensors(layer: Layer) -> list[StoredTensor]:
    """Entries of the state dict of one layer; none for a layer without parameters."""
    return _TENSORS[layer.op](layer) if layer.own and layer.op in _TENSORS else []


def _conv_tensors(layer: Layer) -> list[StoredTensor]:
    shape = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel)
    return _weight_and_bias(layer, f"{layer.name}.conv", shape) + _norm_tensors(layer, f"{layer.name}.norm")


def _transposed_tensors(layer: Layer) -> list[StoredTensor]:
    shape = (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel)
    return _weight_and_bias(layer, layer.name, shape)


def _linear_tensors(layer: Layer) -> list[StoredTensor]:
    shape = (layer.out_channels, layer.in_channels)
    return _weight_and_bias(layer, layer.name, shape) + _norm_tensors(layer, f"{layer.name}.norm")


def _weight_and_bias(layer: Layer, prefix: str, shape: tuple[int, ...]) -> list[StoredTensor]:
    bits = layer.weight_bits
    if bits < 1:
        raise InvalidSetting(f"layer {layer.name!r} has weight_bits={bits}; expected a positive number of bits")
    packed = StoredTensor(f"{prefix}.weight", "U8", ((prod(shape) * bits + 7) // 8,))
    weight = StoredTensor(f"{prefix}.weight", _WEIGHT_TYPE[bits], shape) if bits in _WEIGHT_TYPE else packed
    return [weight] + [StoredTensor(f"{prefix}.bias", "F32", (layer.out_channels,))] * layer.bias


def _norm_tensors(layer: Layer, prefix: str) -> list[StoredTensor]:
    if not layer.norm:
        return []
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = [StoredTensor(f"{prefix}.{name}", "F32", (layer.out_channels,)) for name in names]
    return [*tensors, StoredTensor(f"{prefix}.num_batches_tracked", "I64", ())]


def _layer_norm_tensors(layer: Layer) -> list[StoredTensor]:
    names = ["weight"] * layer.norm + ["bias"] * layer.bias
    return [StoredTensor(f"{layer.name}.{name}", "F32", (layer.out_channels,)) for name in names]


def _held_tensors(layer: Layer) -> list[StoredTensor]:
    """A parameter or a buffer by itself."""
    if layer.act_bits in _HELD_TYPE:
        return [StoredTensor(layer.name, _HELD_TYPE[layer.act_bits], (layer.out_elements,))]
    return [StoredTensor(layer.name, "U8", ((layer.out_elements * layer.act_bits + 7) // 8,))]


_TENSORS = {
    "conv": _conv_tensors,
    "conv_transpose": _transposed_tensors,
    "linear": _linear_tensors,
    "norm": lambda layer: _norm_tensors(layer, layer.name),
    "layernorm": _layer_norm_tensors,
    "parameter": _held_tensors,
    "buffer": _held_tensors,
}
