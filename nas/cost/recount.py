"""A second opinion: the cost of a module, counted by fvcore from a run of it. The only file that imports fvcore.

fvcore follows the operations of a run, so it knows nothing of our plans; where it agrees with a plan's count, both are right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nas.budget import Cost, Metric
from nas.cost.evaluation_mode import left_as_it_was
from nas.cost.storage import StoredTensor, file_bytes

with warnings.catch_warnings():
    # fvcore compiles a loss of its own with torch.jit.script while it is imported
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis

Handler = Callable[[list[Any], list[Any]], int]


def _no_macs(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Query (..., L, E) times key (..., S, E), then weights (..., L, S) times value (..., S, V)."""
    query, key, value = (v.type().sizes() for v in inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _baddbmm_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """What is added, then (b, n, m) times (b, m, p)."""
    left, right = (v.type().sizes() for v in inputs[1:3])
    return prod(left) * right[-1]


def _einsum_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """All axes of a product of two tensors, broadcast ones at their full size; fvcore reads a rounded number from a text.

    The same of more tensors is the most that a contraction of them takes.
    """
    words = inputs[0].toIValue().replace(" ", "").partition("->")[0].split(",")
    shapes = [v.type().sizes() for v in inputs[1].node().inputs()]
    if len(words) == 1:
        return 0
    sizes: dict[str, int] = {}
    for word, shape in zip(words, shapes, strict=True):
        more = len(shape) - len(word.replace("...", ""))
        letters = word.replace("...", "".join(chr(ord("0") + i) for i in range(more))[::-1])
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return prod(sizes.values())


def _convolution_mode_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """A convolution whose padding is a word: each output value reads one filter."""
    return prod(outputs[0].type().sizes()) * prod(inputs[1].type().sizes()[1:])


def _output_elements(inputs: list[Any], outputs: list[Any]) -> int:
    return prod(outputs[0].type().sizes())


# the rule of nas/cost/counting.py: these count nothing, whether or not fvcore has a number for them
_FREE = (
    "add add_ sub sub_ rsub mul mul_ div div_ pow sqrt rsqrt exp abs neg "
    "batch_norm layer_norm group_norm instance_norm "
    "adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d max_pool2d max_pool2d_with_indices mean "
    "hardtanh hardtanh_ hardswish hardswish_ hardsigmoid hardsigmoid_ silu silu_ sigmoid sigmoid_ tanh tanh_ gelu gelu_ "
    "elu elu_ leaky_relu leaky_relu_ mish mish_ softplus softmax log_softmax "
    "dropout_ feature_dropout feature_dropout_ alpha_dropout pad unflatten upsample_nearest2d upsample_bilinear2d "
    "pixel_shuffle channel_shuffle movedim view_as expand_as repeat clone sum amax fill_ ne lt le "
    "addcmul cumsum sin cos log square reciprocal sign floor ceil round clamp clamp_min clamp_max maximum minimum where "
    "masked_fill linalg_vector_norm norm numel zero_ reshape_as repeat_interleave roll flip gather index_select "
    "pixel_unshuffle im2col col2im unfold tile max min amin std var avg_pool1d max_pool1d adaptive_avg_pool1d "
    "upsample_bicubic2d mT mH numpy_T real linspace eye triu tril meshgrid outer randn rand relu6"
).split()
MACS_HANDLERS: dict[str, Handler] = {
    **{f"aten::{name}": _no_macs for name in _FREE},
    "aten::scaled_dot_product_attention": _attention_macs,
    "aten::baddbmm": _baddbmm_macs,
    "aten::einsum": _einsum_macs,
    "aten::_convolution_mode": _convolution_mode_macs,
}
ACTIVATION_HANDLERS: dict[str, Handler] = {
    "aten::scaled_dot_product_attention": _output_elements,
    "aten::baddbmm": _output_elements,
    "aten::_convolution_mode": _output_elements,
}
_STORED_TYPE = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}


def recount(module: nn.Module, example: Tensor) -> Cost:
    """Count macs, params, size_bytes and activations of `module` for the first image of `example` (N, C, H, W).

    Runs the module in evaluation mode and leaves it as it was. Operations without a rule are named in `Cost.uncounted`.
    """
    image = example[:1]
    with left_as_it_was(module), _without_fast_path():
        module.eval()
        macs = _prepare(FlopCountAnalysis(module, (image,)), MACS_HANDLERS)
        activations = _prepare(ActivationCountAnalysis(module, (image,)), ACTIVATION_HANDLERS)
        values = {
            "macs": (int(macs.total()), "multiply-adds"),
            "params": (sum(p.numel() for p in module.parameters()), "parameters"),
            "size_bytes": (state_bytes(module), "B"),
            "activations": (int(activations.total()), "elements"),
        }
        uncounted = tuple(sorted(macs.unsupported_ops()))
    return Cost({name: Metric(value, unit, "fvcore") for name, (value, unit) in values.items()}, uncounted)


def state_bytes(module: nn.Module) -> int:
    """Exact size in bytes of the safetensors file of the module's state dict, whatever its names and types."""
    state = module.state_dict().items()
    return file_bytes(StoredTensor(name, _STORED_TYPE[t.dtype], tuple(t.shape)) for name, t in state)


def _prepare(analysis: Any, handlers: dict[str, Handler]) -> Any:  # noqa: ANN401 - fvcore has no types
    """Give a new analysis our handlers and silence it by its own switches: what it cannot count is reported instead."""
    analysis.set_op_handle(**handlers).tracer_warnings("none")
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Run attention as separate operations, since its fused kernels tell fvcore nothing."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
