"""Small networks as strangers write them: ties between channels, norms, paddings, activations and heads of public code.

Each function builds one with 10 classes and random weights; NETWORKS has the shapes of their images, QUANTIZED those that are
rounded to integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class Net(nn.Module):
    """Parts by name, and how they are put together."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102 - (N, C, H, W) -> (N, C, H, W)
        """(N, C, H, W) -> what `run` gives."""
        return self.run(self, x)


def conv(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: nn.Module | None = None) -> nn.Sequential:
    """A convolution with its norm and an activation."""
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o), act or nn.ReLU())


def headed(i: int, run: Callable[[Any, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> Net:
    """A stem of 32 channels, what `run` makes of it, and a linear head behind the mean of `i` channels."""
    return Net(lambda m, x: m.head(run(m, m.stem(x)).mean((2, 3))), stem=conv(3, 32, 3, 2), head=nn.Linear(i, 10), **parts)


def parameter(*shape: int, value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, float(value)))


# -- ties between channels


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


# -- norms, paddings, activations


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


# -- attention, sequences, heads


def cbam() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        y = m.body(x)
        mean, most = m.mlp(F.adaptive_avg_pool2d(y, 1)), m.mlp(F.adaptive_max_pool2d(y, 1))
        y = y * torch.sigmoid(mean + most)
        maps = torch.cat((y.mean(1, keepdim=True), y.max(1, keepdim=True)[0]), 1)
        return y * torch.sigmoid(m.spatial(maps))

    mlp = nn.Sequential(nn.Conv2d(64, 8, 1), nn.ReLU(), nn.Conv2d(8, 64, 1))
    return headed(64, run, body=conv(32, 64), mlp=mlp, spatial=nn.Conv2d(2, 1, 7, padding=3))


def channel_conv() -> nn.Module:
    """Efficient channel attention: a convolution along the channels."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        w = m.attend(y.mean((2, 3)).unsqueeze(1)).sigmoid()
        return m.b(y * w.transpose(1, 2).unsqueeze(-1))

    return headed(48, run, a=conv(32, 64), attend=nn.Conv1d(1, 1, 3, padding=1, bias=False), b=conv(64, 48))


def position_attention() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = m.q(x).view(n, -1, h * w).permute(0, 2, 1), m.k(x).view(n, -1, h * w), m.v(x).view(n, -1, h * w)
        y = torch.bmm(v, torch.softmax(torch.bmm(q, k), -1).permute(0, 2, 1)).view(n, c, h, w)
        return m.gamma * y + x

    return headed(32, run, q=nn.Conv2d(32, 4, 1), k=nn.Conv2d(32, 4, 1), v=nn.Conv2d(32, 32, 1), gamma=parameter(1, value=0.5))


def attention_pooling() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        x = m.body(x).flatten(2).transpose(1, 2)
        y, _ = m.attend(m.query.expand(x.shape[0], -1, -1), x, x, need_weights=False)
        return m.head(y[:, 0])

    attend = nn.MultiheadAttention(48, 4, batch_first=True)
    body = nn.Sequential(conv(3, 32, 3, 2), conv(32, 48, 3, 2))
    return Net(run, body=body, attend=attend, query=parameter(1, 1, 48, value=0.1), head=nn.Linear(48, 10))


def encoder() -> nn.Module:
    """A transformer by torch's own encoder, with a class token and positions."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((m.token.expand(x.shape[0], -1, -1), x), 1) + m.position
        return m.head(m.encoder(x)[:, 0])

    layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, norm_first=True, activation="gelu")
    net = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(48), enable_nested_tensor=False)
    parts = {"token": parameter(1, 1, 48, value=0.1), "position": parameter(1, 65, 48, value=0.1)}
    return Net(run, patch=nn.Conv2d(3, 48, 4, 4), encoder=net, head=nn.Linear(48, 10), **parts)


def window_attention() -> nn.Module:
    """Swin: windows of 4 by 4, one matrix for queries, keys and values, a learned bias by distance, patch merging."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.patch(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        y = m.norm(x).view(n, h // 4, 4, w // 4, 4, c).transpose(2, 3).reshape(-1, 16, c)
        q, k, v = m.qkv(y).reshape(-1, 16, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q * (c // 4) ** -0.5) @ k.transpose(-2, -1) + m.bias).softmax(-1) @ v
        y = m.proj(y.transpose(1, 2).reshape(-1, 16, c)).view(n, h // 4, w // 4, 4, 4, c).transpose(2, 3).reshape(n, h, w, c)
        x = x + y
        x = torch.cat((x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]), -1)
        return m.head(m.merge(x).mean((1, 2)))

    parts = {
        "norm": nn.LayerNorm(32),
        "qkv": nn.Linear(32, 96),
        "proj": nn.Linear(32, 32),
        "bias": parameter(4, 16, 16, value=0.1),
    }
    return Net(run, patch=nn.Conv2d(3, 32, 4, 4), merge=nn.Linear(128, 64), head=nn.Linear(64, 10), **parts)


def rows() -> nn.Module:
    """Rows of features through an LSTM."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.body(x).permute(0, 2, 1, 3).flatten(2)
        return m.head(m.lstm(y)[0][:, -1])

    return Net(
        run,
        body=nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2)),
        lstm=nn.LSTM(192, 32, batch_first=True),
        head=nn.Linear(32, 10),
    )


def two_poolings() -> nn.Module:
    """The head of fastai: mean and maximum side by side, norms and dropouts."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.body(x)
        return m.head(torch.cat((F.adaptive_max_pool2d(y, 1), F.adaptive_avg_pool2d(y, 1)), 1).flatten(1))

    head = nn.Sequential(
        nn.BatchNorm1d(128),
        nn.Dropout(0.25),
        nn.Linear(128, 48, bias=False),
        nn.ReLU(True),
        nn.BatchNorm1d(48),
        nn.Linear(48, 10),
    )
    return Net(run, body=nn.Sequential(conv(3, 32, 3, 2), conv(32, 64, 3, 2)), head=head)


def coordinates() -> nn.Module:
    """Where a pixel is stands beside its features."""

    def run(m: Any, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = torch.linspace(-1, 1, h, device=x.device).view(1, 1, h, 1).expand(n, 1, h, w)
        z = torch.linspace(-1, 1, w, device=x.device).view(1, 1, 1, w).expand(n, 1, h, w)
        return m.a(torch.cat((x, y, z), 1))

    return headed(64, run, a=conv(34, 64))


def unfolded() -> nn.Module:
    """A convolution by unfold and a product of matrices."""

    def run(m: Any, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return m.b((m.weight @ F.unfold(x, 3, padding=1)).view(n, 48, h, w).relu())

    return headed(64, run, weight=nn.Parameter(torch.randn(48, 288) * 0.05), b=conv(48, 64, 3, 2))


def cosine_head() -> nn.Module:
    """Features and classes on the sphere, as for faces."""

    def run(m: Any, x: Tensor) -> Tensor:
        return F.linear(F.normalize(m.body(x).mean((2, 3))), F.normalize(m.classes)) * 16

    body = nn.Sequential(conv(3, 32, 3, 2), conv(32, 64, 3, 2, act=nn.PReLU(64)))
    return Net(run, body=body, classes=nn.Parameter(torch.randn(10, 64)))


def early_exits() -> nn.Module:
    """The mean of three heads at three depths."""

    def run(m: Any, x: Tensor) -> Tensor:
        a = m.a(x)
        b = m.b(a)
        c = m.c(b)
        return (m.ha(a.mean((2, 3))) + m.hb(b.mean((2, 3))) + m.hc(c.mean((2, 3)))) / 3

    heads = {"ha": nn.Linear(32, 10), "hb": nn.Linear(48, 10), "hc": nn.Linear(64, 10)}
    return Net(run, a=conv(3, 32, 3, 2), b=conv(32, 48, 3, 2), c=conv(48, 64, 3, 2), **heads)


_BUILDERS: tuple[Callable[[], nn.Module], ...] = (
    shuffle_v2,
    csp,
    ghost,
    hrnet,
    pyramid,
    siamese,
    elan,
    res2net,
    selective_kernel,
    pooled_pyramid,
    octave,
    mixed_kernels,
    partial,
    permuted,
    unet,
    stem_slices,
    gated,
    bilinear_pooling,
    response_norm,
    rms_norm,
    dynamic_tanh,
    sync_norm,
    instance_norm,
    convnext_v2,
    paddings,
    circular,
    snake,
    maxout,
    spectral,
    cbam,
    channel_conv,
    position_attention,
    attention_pooling,
    encoder,
    window_attention,
    rows,
    two_poolings,
    coordinates,
    unfolded,
    cosine_head,
    early_exits,
)
NETWORKS = {make.__name__: "3x32x32" for make in _BUILDERS}
QUANTIZED = (
    "shuffle_v2",
    "ghost",
    "hrnet",
    "res2net",
    "gated",
    "response_norm",
    "convnext_v2",
    "paddings",
    "circular",
    "spectral",
    "cbam",
    "encoder",
    "window_attention",
    "rows",
    "two_poolings",
    "unfolded",
    "cosine_head",
)
