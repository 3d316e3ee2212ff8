"""Quantizers: modules that round a tensor to a number format and give it back in floating point (fake quantization).

Integers have a scale that is trained like a weight: learned step size quantization (Esser et al. 2020).
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from compress.quantize.formats import Format

LEAST_SCALE = 1e-8


class IntQuantizer(nn.Module):
    """Rounds to the integers low..high times `scale`, one scale for the tensor or one a channel of dimension 0.

    `scale` and `zero_point` have shape (1,) or (channels,). The gradient of the scale is divided by the root of (number of
    values times high), as LSQ does.
    """

    zero_point: Tensor

    def __init__(self, limits: tuple[int, int], channels: int | None = None) -> None:
        super().__init__()
        self.low, self.high = limits
        self.per_channel = channels is not None
        self.scale = nn.Parameter(torch.ones(channels or 1))
        self.register_buffer("zero_point", torch.zeros(channels or 1))

    def forward(self, x: Tensor) -> Tensor:
        """Round `x`; the result has its shape, in float32."""
        x = x.float()
        if not torch.is_grad_enabled():
            return self._rounded(x)
        scale = self.step
        values = x[0].numel() if self.per_channel else x.numel()
        gradient = 1 / sqrt(max(1, values * self.high))
        if self.per_channel:
            return torch._fake_quantize_learnable_per_channel_affine(
                x, scale, self.zero_point, 0, self.low, self.high, gradient
            )
        return torch._fake_quantize_learnable_per_tensor_affine(x, scale, self.zero_point, self.low, self.high, gradient)

    def _rounded(self, x: Tensor) -> Tensor:
        """The same values without what gradients need, in half the time."""
        step = self.step
        scale, low, high = (_spread(values, x) for values in (step, self.low - self.zero_point, self.high - self.zero_point))
        return (x * (1 / scale)).round_().clamp_(low, high).mul_(scale)

    @property
    def step(self) -> Tensor:
        """The scale as it is used: training may push the parameter to zero or below."""
        return self.scale.clamp_min(LEAST_SCALE)

    def set_range(self, low: Tensor, high: Tensor, symmetric: bool) -> None:
        """Set scale and zero point for values from `low` to `high`, each of shape (1,) or (channels,); 0 stays exact."""
        low, high = low.clamp_max(0).float(), high.clamp_min(0).float()
        with torch.no_grad():
            if symmetric:
                # of the two ends the integers reach further down below 8 bits; values are placed by the nearer one
                self.scale.copy_((torch.maximum(-low, high) / min(-self.low, self.high)).clamp_min(LEAST_SCALE))
                self.zero_point.zero_()
                return
            self.scale.copy_(((high - low) / (self.high - self.low)).clamp_min(LEAST_SCALE))
            self.zero_point.copy_((self.low - low / self.scale).round().clamp(self.low, self.high))


class PlainQuantizer(nn.Module):
    """Rounds as a trained IntQuantizer does, by operations that every exporter knows; it is not trained."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, trained: IntQuantizer) -> None:
        super().__init__()
        self.low, self.high = trained.low, trained.high
        self.register_buffer("scale", trained.step.detach().clone())
        self.register_buffer("zero_point", trained.zero_point.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Round `x`, as IntQuantizer does."""
        scale, zero = _spread(self.scale, x), _spread(self.zero_point, x)
        return (((x.float() / scale).round() + zero).clamp(self.low, self.high) - zero) * scale


class FloatQuantizer(nn.Module):
    """Rounds to a floating-point type of 8 bits, scaled so that the largest value of a channel or tensor is its largest."""

    scale: Tensor

    def __init__(self, dtype: torch.dtype, channels: int | None = None) -> None:
        super().__init__()
        self.dtype = dtype
        self.register_buffer("scale", torch.ones(channels or 1))

    def forward(self, x: Tensor) -> Tensor:
        """Round `x`; gradients pass as if it were not rounded."""
        x = x.float()
        largest = torch.finfo(self.dtype).max
        scale = _spread(self.scale, x)
        rounded = (x / scale).clamp(-largest, largest).to(self.dtype).float() * scale
        return rounded.detach() + (x - x.detach())  # in this order the value is exactly the rounded one

    def set_range(self, low: Tensor, high: Tensor, symmetric: bool) -> None:
        """Set the scale for values from `low` to `high`; the format is symmetric in any case."""
        self.scale.copy_((torch.maximum(-low, high).float() / torch.finfo(self.dtype).max).clamp_min(LEAST_SCALE))


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """One value a channel of dimension 0 of `x`, or a single one, so that they broadcast."""
    return values.reshape(-1, *(1 for _ in x.shape[1:])) if len(values) > 1 else values


Quantizer = IntQuantizer | FloatQuantizer


def weight_quantizer(number: Format, channels: int) -> Quantizer | None:
    """What rounds the weights of a layer, a scale for each of its output channels; None for fp32."""
    if number.bits >= 32:
        return None
    return FloatQuantizer(number.dtype, channels) if number.dtype else IntQuantizer(number.signed, channels)


def activation_quantizer(number: Format) -> Quantizer | None:
    """What rounds an activation, one scale for the tensor; None for fp32."""
    if number.bits >= 32:
        return None
    return FloatQuantizer(number.dtype) if number.dtype else IntQuantizer(number.unsigned)
