"""Operations that ONNX does not have, by others that it has, while a network is traced in evaluation.

Adding one is adding a function with the arguments of torch's and a line in REWRITES; None stands for "as it is".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]


class Portable(TorchFunctionMode):
    """Replaces what REWRITES has, where the function there gives something."""

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        """Call the replacement of `func`, or `func` itself."""
        named = dict(kwargs or {})
        rewrite = REWRITES.get(func)
        found = rewrite(*args, **named) if rewrite else None
        return func(*args, **named) if found is None else found


def _rrelu(x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_: bool, **__: bool) -> Tensor:
    """In evaluation the slope is the mean of its bounds."""
    return F.leaky_relu(x, (lower + upper) / 2)


def _conv2d(  # noqa: PLR0913 - as torch has them
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,  # noqa: ANN401 - an integer or two
    padding: Any = 0,  # noqa: ANN401 - the same, or a name
    dilation: Any = 1,  # noqa: ANN401 - an integer or two
    groups: Any = 1,  # noqa: ANN401 - a number, or one that depends on the images
) -> Tensor | None:
    """A convolution of as many groups as there are images: a filter of each image's own, as dynamic convolutions have them.

    (1, N * C, H, W) and (N * O, C, h, w) -> (1, N * O, H', W'), by a product of matrices for each place of the filter.
    """
    if isinstance(groups, int) or bias is not None or isinstance(padding, str):
        return None
    (down, right), (rows, columns), (above, left) = _pair(stride), _pair(dilation), _pair(padding)
    images = F.pad(x.reshape(groups, -1, *x.shape[2:]), (left, left, above, above))
    filters = weight.reshape(groups, -1, *weight.shape[1:])
    height = (images.shape[2] - rows * (weight.shape[2] - 1) - 1) // down + 1
    width = (images.shape[3] - columns * (weight.shape[3] - 1) - 1) // right + 1
    products = []
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            top, start = row * rows, column * columns
            seen = images[:, :, top : top + down * (height - 1) + 1 : down, start : start + right * (width - 1) + 1 : right]
            products.append(filters[..., row, column] @ seen.flatten(2))
    return sum(products[1:], products[0]).reshape(1, -1, height, width)


def _adaptive_max_pool2d(x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor | None:  # noqa: ANN401 - as torch
    """The maxima of windows that differ in size, one after the other; to one value each it is a maximum of all."""
    if return_indices:
        return None
    asked = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    high, wide = (side if size is None else size for size, side in zip(asked, x.shape[-2:], strict=True))
    rows = [x[..., top:end, :].amax(-2) for top, end in _windows(x.shape[-2], high)]
    lines = torch.stack(rows, -2)
    return torch.stack([lines[..., start:end].amax(-1) for start, end in _windows(x.shape[-1], wide)], -1)


def _windows(side: int, number: int) -> list[Pair]:
    return [(i * side // number, -(-(i + 1) * side // number)) for i in range(number)]


def _cdist(one: Tensor, two: Tensor, p: float = 2.0, compute_mode: object = None) -> Tensor | None:
    """Euclidean distances by products (N, P, M) and (N, R, M) -> (N, P, R)."""
    if p != 2:  # noqa: PLR2004 - Euclid's
        return None
    return (one.unsqueeze(-2) - two.unsqueeze(-3)).square().sum(-1).sqrt()


def _median(x: Tensor, dim: int | None = None, keepdim: bool = False) -> object:
    """The lower one of two in the middle, as torch has it."""
    return None if dim is None else torch.return_types.median(_smallest(x, (x.shape[dim] + 1) // 2, dim, keepdim))


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> object:
    return torch.return_types.kthvalue(_smallest(x, k, dim, keepdim))


def _smallest(x: Tensor, k: int, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    values, indices = x.sort(dim)
    found = values.narrow(dim, k - 1, 1), indices.narrow(dim, k - 1, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def _attention(  # noqa: PLR0913 - as torch has them
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """Attention with a mask in its parts: of the fused one the exporter loses the layout, where the batch is open."""
    if attn_mask is None or is_causal or enable_gqa:
        return None
    weights = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    masked = weights.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else weights + attn_mask
    return masked.softmax(-1) @ value


def _pair(value: int | Pair | list[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


REWRITES: dict[Callable[..., object], Callable[..., Any]] = {
    F.rrelu: _rrelu,
    torch.rrelu: _rrelu,
    F.conv2d: _conv2d,
    F.adaptive_max_pool2d: _adaptive_max_pool2d,
    F.scaled_dot_product_attention: _attention,
    torch.cdist: _cdist,
    torch.median: _median,
    Tensor.median: _median,
    torch.kthvalue: _kthvalue,
    Tensor.kthvalue: _kthvalue,
}
