"""Convolutions that compute their weights from others in each run, such as standardized ones, with the weights as they are.

Qiao et al. 2019, "Micro-batch training with batch-channel normalization and weight standardization". A cut changes the channels
that such statistics run over; in evaluation they are constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.prune.execution import FAILURES
from nas.torch_seeding import generator

PLAIN: dict[type[nn.Module], object] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
EXAMPLE = 3  # output places along each side


def with_constant_weights(network: nn.Module) -> nn.Module:
    """`network`, in place, with a plain convolution for each one that computes its weights from its own parameters alone."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            kind = next((kind for kind in PLAIN if isinstance(child, kind)), None)
            if kind is not None and type(child).forward is not kind.forward:
                setattr(parent, name, _plain(child, kind) or child)
    return network


class _Weights(TorchFunctionMode):
    """Notes the weights that convolutions are called with."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.seen: list[Tensor] = []

    def __torch_function__(self, func: Any, types: object, args: tuple = (), kwargs: Mapping[str, Any] | None = None) -> object:
        named = kwargs or {}
        if func is self.function:
            self.seen.append(args[1] if len(args) > 1 else named["weight"])
        return func(*args, **named)


@torch.no_grad()
def _plain(layer: Any, kind: Any) -> nn.Module | None:  # noqa: ANN401 - one of three classes
    """A plain layer that computes what `layer` does in evaluation; None if there is none."""
    sides = [
        d * (k - 1) + 1 + (EXAMPLE - 1) * s for d, k, s in zip(layer.dilation, layer.kernel_size, layer.stride, strict=True)
    ]
    example = torch.randn(2, layer.in_channels, *sides, generator=generator(0, "weights")).to(layer.weight)
    was_training = layer.training
    layer.eval()
    try:
        with _Weights(PLAIN[kind]) as noted:
            expected = layer(example)
        if len(noted.seen) != 1 or noted.seen[0] is layer.weight or noted.seen[0].shape != layer.weight.shape:
            return None
        found = _like(layer, kind, noted.seen[0])
        same = torch.allclose(found(example), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    except FAILURES:
        return None
    finally:
        layer.train(was_training)
    return found.train(was_training) if same else None


def _like(layer: Any, kind: Any, weight: Tensor) -> nn.Module:  # noqa: ANN401 - one of three classes
    found = kind(
        *(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups),
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
        device="meta",
    )
    found.weight = nn.Parameter(weight.clone(), layer.weight.requires_grad)
    if layer.bias is not None:
        found.bias = layer.bias
    return found
