"""Norms, paddings and activations of public code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.strange_parts import headed, parameter


class ResponseNorm(nn.Module):
    """Filter response normalization with its threshold."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gamma, self.beta, self.tau = parameter(1, c, 1, 1), parameter(1, c, 1, 1, value=0), parameter(1, c, 1, 1, value=0)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        x = x * torch.rsqrt(x.pow(2).mean((2, 3), keepdim=True) + 1e-6)
        return torch.max(self.gamma * x + self.beta, self.tau)


class RootMeanSquare(nn.Module):
    """RMS norm over the channels of images."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight = parameter(c)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        return x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() * self.weight[:, None, None]


class DynamicTanh(nn.Module):
    """A norm by a learned tanh."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.alpha, self.weight, self.bias = parameter(1, value=0.5), parameter(c), parameter(c, value=0.1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        return torch.tanh(self.alpha * x) * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class GlobalResponse(nn.Module):
    """ConvNeXt V2: channels by the share that they have of all."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.gamma, self.beta = parameter(1, 1, 1, c), parameter(1, 1, 1, c, value=0)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + self.beta + x


def normed(make: Callable[[int], nn.Module]) -> nn.Module:
    """Two convolutions with a norm of one's own, around a residual."""

    def run(m: Any, x: Tensor) -> Tensor:
        return x + m.nb(m.b(m.na(m.a(x))))

    parts = {"a": nn.Conv2d(32, 64, 3, padding=1), "b": nn.Conv2d(64, 32, 3, padding=1)}
    return headed(32, run, na=make(64), nb=make(32), **parts)


def response_norm() -> nn.Module:
    return normed(ResponseNorm)


def rms_norm() -> nn.Module:
    return normed(RootMeanSquare)


def dynamic_tanh() -> nn.Module:
    return normed(DynamicTanh)


def sync_norm() -> nn.Module:
    return normed(lambda c: nn.Sequential(nn.SyncBatchNorm(c), nn.Mish()))


def instance_norm() -> nn.Module:
    return normed(lambda c: nn.Sequential(nn.InstanceNorm2d(c, affine=True, track_running_stats=True), nn.Softplus()))


def convnext_v2() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.depth(x).permute(0, 2, 3, 1))
        return x + m.narrow(m.response(F.gelu(m.wide(y)))).permute(0, 3, 1, 2)

    parts = {"depth": nn.Conv2d(32, 32, 7, 1, 3, groups=32), "norm": nn.LayerNorm(32), "wide": nn.Linear(32, 96)}
    return headed(32, run, response=GlobalResponse(96), narrow=nn.Linear(96, 32), **parts)


def paddings() -> nn.Module:
    first = (
        nn.ReflectionPad2d((1, 2, 0, 1)),
        nn.Conv2d(32, 48, 3),
        nn.ReLU6(),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(48, 48, 3, 2),
    )
    second = (nn.BatchNorm2d(48), nn.Hardtanh(), nn.ConstantPad2d(1, 0.5), nn.Conv2d(48, 64, 3), nn.CircularPad2d(1))
    return headed(64, lambda m, x: m.body(x), body=nn.Sequential(*first, *second, nn.LeakyReLU(0.2)))


def circular() -> nn.Module:
    body = nn.Sequential(
        nn.Conv2d(32, 48, 3, padding=1, padding_mode="circular"), nn.ELU(), nn.Conv2d(48, 64, 3, padding="valid")
    )
    return headed(64, lambda m, x: m.body(x), body=body)


def snake() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.b(y + torch.sin(m.alpha * y).pow(2) / (m.alpha + 1e-9))

    return headed(48, run, a=nn.Conv2d(32, 64, 3, 2, 1), b=nn.Conv2d(64, 48, 3, padding=1), alpha=parameter(1, 64, 1, 1))


def maxout() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.b(y.view(y.shape[0], 2, y.shape[1] // 2, *y.shape[2:]).amax(1))

    return headed(48, run, a=nn.Conv2d(32, 64, 3, 2, 1), b=nn.Conv2d(32, 48, 3, padding=1))


def spectral() -> nn.Module:
    norm = torch.nn.utils.parametrizations.spectral_norm
    parts = {"a": norm(nn.Conv2d(32, 48, 3, 2, 1)), "b": norm(nn.Conv2d(48, 48, 3, padding=1))}
    return headed(48, lambda m, x: m.b(F.leaky_relu(m.a(x), 0.1)), **parts)
