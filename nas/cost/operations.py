"""What the operations of a run cost: multiply-adds of every ATen operation, as torch carries it out.

A dispatch mode sees what is really computed, under whatever names a network asks for it: modules, functions, recurrent layers,
autograd functions and attention all end in a few kinds of products. Convolutions, matrix products and attention have
multiply-adds, by the rule of nas/cost/counting.py; arithmetic on single values, reductions, pooling, norms and what only moves
values have none; anything else is named as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nas.cost.free_operations import FREE

Rule = Callable[[Sequence[Any], Any], int]


@dataclass(frozen=True)
class Work:
    """What a run has computed: multiply-adds, output elements of products, and operations whose cost is not known."""

    macs: int = 0
    outputs: int = 0
    unknown: tuple[str, ...] = ()


class Counting(TorchDispatchMode):
    """While it is entered, counts what torch computes. `work` is the sum so far."""

    def __init__(self) -> None:
        super().__init__()
        self._macs = self._outputs = 0
        self._unknown: dict[str, None] = {}

    @property
    def work(self) -> Work:
        """What was computed until now."""
        return Work(self._macs, self._outputs, tuple(self._unknown))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - of torch
        """Count one operation, or what it is composed of, and carry it out."""
        name, kwargs = func.name().partition(".")[0], kwargs or {}
        rule = MACS.get(name)
        if rule is None and not _is_free(func):
            with self:
                composed = func.decompose(*args, **kwargs)
            if composed is not NotImplemented:
                return composed
            self._unknown[name] = None
        result = func(*args, **kwargs)
        if rule is not None:
            self._macs += rule(args, result)
            self._outputs += _elements(result)
        return result


@contextmanager
def counting() -> Iterator[Counting]:
    """Count what runs inside; attention runs as separate operations, since its fused kernels cannot be looked into."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with Counting() as mode:
            yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


# -- multiply-adds of one operation, from its arguments and its result


def _product(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """(..., n, k) times (..., k, m)."""
    return int(args[0].numel()) * int(args[1].shape[-1])


def _added_product(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """What is added, then the operands of a product."""
    return _product(args[1:], result)


def _vector(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    return int(args[0].numel())


def _added_vector(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    return int(args[1].numel())


def _filtered(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """Each output value reads one filter; of a transposed convolution each input value writes through one."""
    image, weight, transposed = args[0], args[1], args[6]
    return int((image if transposed else result).numel()) * prod(weight.shape[1:])


def _attention(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """Query (..., L, E) times key (..., S, E), then weights (..., L, S) times value (..., S, V)."""
    query, key, value = (x.shape for x in args[:3])
    return prod(query[:-1]) * int(key[-2]) * int(query[-1] + value[-1])


def _recurrent(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """Every step (length, batch, channels) reads the matrices of its input and of its state: the next two arguments."""
    return prod(args[0].shape[:-1]) * int(args[1].numel() + args[2].numel())


def _all_recurrent(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """The same of all layers and directions at once, as on the GPU; what has one axis is a bias."""
    return prod(args[0].shape[:-1]) * sum(int(x.numel()) for x in args[1] if x.dim() > 1)


def _deformed(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """Deformable convolution (Dai et al. 2017): each output value reads one filter; sampling between pixels counts nothing."""
    return int(result.numel()) * prod(args[1].shape[1:])


def _distances(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """A sum over the channels for each pair, as of a product."""
    return int(result.numel()) * int(args[0].shape[-1])


def _bilinear(args: Sequence[Any], result: Any) -> int:  # noqa: ANN401
    """Each output value sums over all pairs of channels; axes that an operand lacks are broadcast."""
    first, second, third, *axes = args[:6]
    shapes = [_expanded(x.shape, added) for x, added in zip((first, second, third), axes, strict=True)]
    return prod(max(sizes) for sizes in zip(*shapes, strict=True))


def _expanded(shape: Sequence[int], added: Sequence[int]) -> list[int]:
    sizes = list(shape)
    for axis in sorted(added):
        sizes.insert(axis, 1)
    return sizes


_ATTENTION = "flash_attention flash_attention_for_cpu efficient_attention cudnn_attention fused_attention_overrideable"
MACS: dict[str, Rule] = {
    **dict.fromkeys((f"aten::{name}" for name in ("mm", "bmm", "_int_mm")), _product),
    **dict.fromkeys((f"aten::{name}" for name in ("addmm", "_addmm_activation", "baddbmm", "addbmm")), _added_product),
    **dict.fromkeys((f"aten::{name}" for name in ("mv", "dot", "vdot")), _vector),
    "aten::addmv": _added_vector,
    **dict.fromkeys(("aten::convolution", "aten::convolution_overrideable"), _filtered),
    **dict.fromkeys((f"aten::_scaled_dot_product_{name}" for name in _ATTENTION.split()), _attention),
    "aten::mkldnn_rnn_layer": _recurrent,
    **dict.fromkeys(("aten::_cudnn_rnn", "aten::miopen_rnn"), _all_recurrent),
    "aten::_cdist_forward": _distances,
    "aten::_trilinear": _bilinear,
    "torchvision::deform_conv2d": _deformed,
}

# -- what counts nothing: arithmetic on single values, reductions and views by torch's own tags, the rest by name

_FREE_TAGS = frozenset({torch.Tag.pointwise, torch.Tag.reduction})
_FREE_ELSEWHERE = frozenset(
    {"torchvision::roi_align", "torchvision::roi_pool", "torchvision::ps_roi_align", "torchvision::nms"}
)


@lru_cache(maxsize=4096)
def _is_free(func: Any) -> bool:  # noqa: ANN401 - torch's operation
    name = func.name().partition(".")[0]
    space, _, base = name.partition("::")
    known = space in ("aten", "prims") and bool({base, base.removesuffix("_")} & FREE)
    return known or space == "profiler" or name in _FREE_ELSEWHERE or func.is_view or not _FREE_TAGS.isdisjoint(func.tags)


def _elements(result: Any) -> int:  # noqa: ANN401
    first = result[0] if isinstance(result, tuple | list) else result
    return int(first.numel())
