"""Ties between channels of public code: splits, shuffles, concatenations, fusions, shared layers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.strange_parts import Net, conv, headed, parameter


def shuffled(x: Tensor, groups: int = 2) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """ShuffleNet V2: one half passes, the other is worked on."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(c // 2, c // 2, 1), conv(c // 2, c // 2, 3, g=c // 2), conv(c // 2, c // 2, 1))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        kept, worked = x.chunk(2, 1)
        return shuffled(torch.cat((kept, self.branch(worked)), 1))


def shuffle_v2() -> nn.Module:
    down = conv(32, 64, 3, 2)
    return headed(64, lambda m, x: m.units(m.down(x)), down=down, units=nn.Sequential(*[ShuffleUnit(64) for _ in range(3)]))


class Bottleneck(nn.Module):
    """A residual block of YOLO."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(c, c, 1, act=nn.SiLU()), conv(c, c, 3, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        return x + self.cv2(self.cv1(x))


def csp() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.out(torch.cat((m.blocks(m.a(x)), m.b(x)), 1))

    blocks = nn.Sequential(Bottleneck(24), Bottleneck(24))
    return headed(64, run, a=conv(32, 24, 1), b=conv(32, 24, 1), blocks=blocks, out=conv(48, 64, 1))


class Ghost(nn.Module):
    """GhostNet: half of the features are cheap ones of the others; what is too many is cut off."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.o, half = o, -(-o // 2)
        self.primary, self.cheap = conv(i, half, 1), conv(half, half, 3, g=half)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        y = self.primary(x)
        return torch.cat((y, self.cheap(y)), 1)[:, : self.o]


def ghost() -> nn.Module:
    return headed(49, lambda m, x: m.c(x + m.b(m.a(x))), a=Ghost(32, 48), b=Ghost(48, 32), c=Ghost(32, 49))


def hrnet() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        high, low = m.high(x), m.low(m.down(x))
        up = F.interpolate(m.to_high(low), size=high.shape[-2:], mode="bilinear", align_corners=False)
        high, low = F.relu(high + up), F.relu(low + m.to_low(high))
        return torch.cat((high, F.interpolate(low, scale_factor=2.0, mode="nearest")), 1)

    plain = nn.Identity()
    parts = {"high": conv(32, 32), "down": conv(32, 48, 3, 2), "low": conv(48, 48)}
    return headed(80, run, to_high=conv(48, 32, 1, act=plain), to_low=conv(32, 48, 3, 2, act=plain), **parts)


def pyramid() -> nn.Module:
    """One head over three levels of a feature pyramid."""

    def run(m: Any, x: Tensor) -> Tensor:
        c3 = m.c3(m.stem(x))
        c4 = m.c4(c3)
        c5 = m.c5(c4)
        p5 = m.l5(c5)
        p4 = m.l4(c4) + F.interpolate(p5, scale_factor=2)
        p3 = m.l3(c3) + F.interpolate(p4, scale_factor=2)
        return torch.stack([m.top(m.head(p).flatten(2).mean(2)) for p in (p3, p4, p5)]).sum(0)

    laterals = {"l3": nn.Conv2d(32, 24, 1), "l4": nn.Conv2d(48, 24, 1), "l5": nn.Conv2d(64, 24, 1)}
    levels = {"stem": conv(3, 16, 3, 2), "c3": conv(16, 32, 3), "c4": conv(32, 48, 3, 2), "c5": conv(48, 64, 3, 2)}
    return Net(run, head=nn.Sequential(conv(24, 24), conv(24, 24)), top=nn.Linear(24, 10), **levels, **laterals)


def siamese() -> nn.Module:
    body = nn.Sequential(conv(3, 32, 3, 2), conv(32, 48), conv(48, 64, 3, 2))

    def run(m: Any, x: Tensor) -> Tensor:
        a, b = m.body(x).mean((2, 3)), m.body(x.flip(3)).mean((2, 3))
        return m.head(torch.cat(((a - b).abs(), a * b), 1))

    return Net(run, body=body, head=nn.Linear(128, 10))


def elan() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        parts = [m.a(x), m.b(x)]
        for block in m.blocks:
            parts.append(block(parts[-1]))
        return m.out(torch.cat([parts[i] for i in (-1, -2, 1, 0)], 1))

    blocks = nn.ModuleList([conv(24, 24) for _ in range(3)])
    return headed(64, run, a=conv(32, 24, 1), b=conv(32, 24, 1), blocks=blocks, out=conv(96, 64, 1))


def res2net() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        parts = torch.split(m.inner(x), 12, 1)
        done, last = [parts[0]], parts[1]
        for i, block in enumerate(m.blocks):
            last = block(last if i == 0 else last + parts[i + 1])
            done.append(last)
        return F.relu(m.outer(torch.cat(done, 1)) + x)

    blocks = nn.ModuleList([conv(12, 12) for _ in range(3)])
    return headed(32, run, inner=conv(32, 48, 1), blocks=blocks, outer=conv(48, 32, 1, act=nn.Identity()))


def selective_kernel() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        feats = torch.stack([m.a(x), m.b(x)], 1)
        squeezed = m.reduce(feats.sum(1).mean((2, 3), keepdim=True))
        weights = torch.stack([m.wa(squeezed), m.wb(squeezed)], 1).softmax(1)
        return (feats * weights).sum(1)

    parts = {"a": conv(32, 48, 3), "b": conv(32, 48, 5), "reduce": conv(48, 16, 1)}
    return headed(48, run, wa=nn.Conv2d(16, 48, 1), wb=nn.Conv2d(16, 48, 1), **parts)


def pooled_pyramid() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        y = [m.a(x)]
        for _ in range(3):
            y.append(F.max_pool2d(y[-1], 5, 1, 2))
        return m.b(torch.cat(y, 1))

    return headed(64, run, a=conv(32, 24, 1), b=conv(96, 64, 1))


def octave() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        high, low = m.hh(x), m.hl(F.avg_pool2d(x, 2))
        high, low = m.hh2(high) + F.interpolate(m.lh(low), scale_factor=2), m.ll(low) + m.hl2(F.avg_pool2d(high, 2))
        return torch.cat((high, F.interpolate(low, scale_factor=2)), 1)

    wide = {"hh": conv(32, 32), "hl": conv(32, 16), "hh2": conv(32, 32), "hl2": conv(32, 16)}
    return headed(48, run, lh=conv(16, 32), ll=conv(16, 16), **wide)


def mixed_kernels() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        a, b, c = torch.split(m.wide(x), [16, 24, 24], 1)
        return m.narrow(torch.cat((m.k3(a), m.k5(b), m.k7(c)), 1))

    kernels = {"k3": conv(16, 16, 3, g=16), "k5": conv(24, 24, 5, g=24), "k7": conv(24, 24, 7, g=24)}
    return headed(48, run, wide=conv(32, 64, 1), narrow=conv(64, 48, 1), **kernels)


def partial() -> nn.Module:
    """FasterNet: a quarter of the channels is convolved, the others pass."""

    def run(m: Any, x: Tensor) -> Tensor:
        worked = torch.cat((m.part(x[:, :8]), x[:, 8:]), 1)
        return x + m.project(m.expand(worked))

    return headed(32, run, part=nn.Conv2d(8, 8, 3, 1, 1, bias=False), expand=conv(32, 64, 1), project=nn.Conv2d(64, 32, 1))


def permuted() -> nn.Module:
    """Channels in a fixed random order, between two convolutions in groups."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))

    def run(m: Any, x: Tensor) -> Tensor:
        return m.b(m.a(x)[:, m.order])

    net = headed(48, run, a=conv(32, 32, 3, g=4), b=conv(32, 48, 3, g=4))
    net.register_buffer("order", order)
    return net


def unet() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        a = m.a(x)
        b = m.b(F.max_pool2d(a, 2))
        c = m.c(F.max_pool2d(b, 2))
        b = m.d(torch.cat((F.interpolate(c, scale_factor=2, mode="bilinear", align_corners=True), b), 1))
        return m.e(torch.cat((F.interpolate(b, size=a.shape[2:], mode="bilinear", align_corners=True), a), 1))

    return headed(24, run, a=conv(32, 24), b=conv(24, 48), c=conv(48, 64), d=conv(112, 48), e=conv(72, 24))


def stem_slices() -> nn.Module:
    """YOLOv5's Focus: every second pixel, four times."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)
        return m.head(m.body(x).amax((2, 3)))

    return Net(run, body=nn.Sequential(conv(12, 32), conv(32, 64, 3, 2)), head=nn.Linear(64, 10))


def gated() -> nn.Module:
    """NAFNet's simple gate: one half times the other, and channel attention by a mean."""

    def run(m: Any, x: Tensor) -> Tensor:
        a, b = m.depth(m.wide(m.norm(x))).chunk(2, dim=1)
        y = a * b
        return x + m.project(y * m.attend(y.mean((2, 3), keepdim=True))) * m.beta

    parts = {"wide": nn.Conv2d(32, 64, 1), "depth": nn.Conv2d(64, 64, 3, 1, 1, groups=64), "project": nn.Conv2d(32, 32, 1)}
    return headed(32, run, norm=nn.GroupNorm(1, 32), attend=nn.Conv2d(32, 32, 1), beta=parameter(1, 32, 1, 1), **parts)


def bilinear_pooling() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.reduce(m.body(x)).flatten(2)
        return m.head(torch.einsum("nap,nbp->nab", y, y).flatten(1) / y.shape[-1])

    return Net(run, body=nn.Sequential(conv(3, 32, 3, 2), conv(32, 48)), reduce=conv(48, 8, 1), head=nn.Linear(64, 10))
