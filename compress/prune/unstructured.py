"""Single weights set to zero by magnitude: anywhere, or N of each M kept.

This makes a network smaller once it is compressed, and mostly not faster: dense runtimes (onnxruntime, OpenVINO, torch)
multiply zeros like any other number, whatever their share. 2:4 is faster on NVIDIA GPUs since Ampere alone, and there through
kernels made for it; no pattern here changes the time of an exported fp32 model.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from nas.errors import InvalidSetting, not_known

ZLIB_LEVEL = 6
_OWNERS: dict[type[nn.Module], str] = {  # by the name of their matrix; biases, norms and embeddings are few and matter
    nn.Conv1d: "weight",
    nn.Conv2d: "weight",
    nn.Conv3d: "weight",
    nn.Linear: "weight",
    nn.MultiheadAttention: "in_proj_weight",
}
Masks = dict[str, Tensor]


@dataclass(frozen=True)
class CompressedSize:
    """Bytes of all parameters and buffers: as they are, by zlib, and as a bit for each value beside those that are not zero.

    zlib (level 6) works on each tensor by itself. The bit mask is taken for those tensors that get smaller by it.
    """

    dense: int
    zlib: int
    bitmask: int


def magnitude_mask(module: nn.Module, sparsity: float, pattern: str = "global") -> Masks:
    """Masks that drop the smallest weights: parameter name -> bool of its shape, True where a weight stays.

    `sparsity` in [0, 1) is the share of zeros among the weights of convolutions, linear layers and attention (Han et al.
    2015), exact up to rounding; one weight stays in any case. `pattern` is one of PATTERNS. Of equal weights the first ones go.
    Raises InvalidSetting.
    """
    _check_pattern(pattern)
    if not 0 <= sparsity < 1:
        raise InvalidSetting(f"sparsity {sparsity} is no share of weights to drop; give at least 0 and less than 1")
    return PATTERNS[pattern](_weights(module), sparsity)


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the masked weights of `module` to zero, in place; in training, after each step of the optimizer.

    Raises InvalidSetting naming the first mask that does not fit.
    """
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise InvalidSetting(f"the network has no parameter {name!r} of shape {tuple(mask.shape)}; mask it again")
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0)


def sparsity_at(step: int, steps: int, final: float) -> float:
    """The sparsity at a step of a ramp from 0 to `final` over `steps` > 0 steps, and after it: cubic (Zhu & Gupta 2017).

    It drops many weights while there are many, and few at the end.
    """
    assert step >= 0 and steps > 0, (step, steps)
    return final * (1 - (1 - min(step / steps, 1)) ** 3)


def compressed_bytes(module: nn.Module) -> CompressedSize:
    """Measure what the weights take when they are compressed. zlib works at some 30 MB a second."""
    dense = packed = masked = 0
    for tensor in module.state_dict().values():
        data = tensor.detach().cpu().contiguous().reshape(-1)
        size = data.numel() * data.element_size()
        dense += size
        packed += len(zlib.compress(data.view(torch.uint8).numpy(), ZLIB_LEVEL))
        masked += min(size, (data.numel() + 7) // 8 + int(data.count_nonzero()) * data.element_size())
    return CompressedSize(dense, packed, masked)


# -- patterns


def _overall(weights: Mapping[str, Tensor], sparsity: float) -> Masks:
    """The smallest weights of the whole network, wherever they are."""
    kept = _without_smallest(torch.cat([w.abs().flatten() for w in weights.values()]), sparsity) if weights else torch.empty(0)
    parts = kept.split([w.numel() for w in weights.values()])
    return {name: part.view_as(w) for (name, w), part in zip(weights.items(), parts, strict=True)}


def _each_layer(weights: Mapping[str, Tensor], sparsity: float) -> Masks:
    """The smallest weights of each layer, the same share of all."""
    return {name: _without_smallest(w.abs().flatten(), sparsity).view_as(w) for name, w in weights.items()}


def _n_of_m(n: int, m: int, weights: Mapping[str, Tensor], sparsity: float) -> Masks:
    """Keep at least n of m neighbours along the input channels; round(m * sparsity) of them go.

    On the way to the full sparsity 1 - n/m fewer go from every group (structure decay, Kao et al. 2022). Layers whose input
    channels in a group are no multiple of m, such as the first convolution and depthwise ones, have no mask.
    """
    if sparsity > 1 - n / m:
        raise InvalidSetting(f"sparsity {sparsity} is more than {n}:{m} has; give at most {1 - n / m}")
    return {name: _kept_in_groups(w, m, round(m * sparsity)) for name, w in weights.items() if w.shape[1] % m == 0}


# at least so many of how many neighbours stay
NEIGHBOURS: Mapping[str, tuple[int, int]] = {"2:4": (2, 4), "1:4": (1, 4), "4:8": (4, 8)}
PATTERNS: Mapping[str, Callable[[Mapping[str, Tensor], float], Masks]] = {
    "global": _overall,
    "layer": _each_layer,
    **{name: partial(_n_of_m, *pair) for name, pair in NEIGHBOURS.items()},
}


def check_reachable(sparsity: float, pattern: str) -> None:
    """Make sure that a pattern can have just this share of zeros. Raises InvalidSetting with those that it can have."""
    _check_pattern(pattern)
    if pattern not in NEIGHBOURS:
        return
    n, m = NEIGHBOURS[pattern]
    shares = [gone / m for gone in range(1, m - n + 1)]
    if not any(math.isclose(sparsity, share, abs_tol=1e-6) for share in shares):
        known = " or ".join(f"{share:g}" for share in shares)
        raise InvalidSetting(f"sparsity {sparsity:g} is none of {pattern}, where whole weights of each {m} go; give {known}")


def _without_smallest(sizes: Tensor, sparsity: float) -> Tensor:
    """True for all but the `sparsity` smallest of `sizes` (n,), and for one at least."""
    kept = torch.ones_like(sizes, dtype=torch.bool)
    kept[sizes.argsort(stable=True)[: min(round(sparsity * len(sizes)), len(sizes) - 1)]] = False
    return kept


def _kept_in_groups(weight: Tensor, m: int, dropped: int) -> Tensor:
    inputs_last = weight.abs().movedim(1, -1)
    groups = inputs_last.reshape(-1, m)
    kept = torch.ones_like(groups, dtype=torch.bool)
    kept.scatter_(1, groups.argsort(dim=1, stable=True)[:, :dropped], False)
    return kept.view(inputs_last.shape).movedim(-1, 1).contiguous()


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """The matrices that are masked; one that two layers share is there once."""
    names = {
        f"{path}.{attribute}" if path else attribute
        for path, part in module.named_modules()
        for owner, attribute in _OWNERS.items()
        if isinstance(part, owner)
    }
    return {name: p.detach() for name, p in module.named_parameters() if name in names}


def _check_pattern(pattern: str) -> None:
    if pattern not in PATTERNS:
        raise InvalidSetting(f"pattern {not_known(pattern, PATTERNS)}")
