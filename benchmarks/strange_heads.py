"""Attention, sequences and heads of public code."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from benchmarks.strange_parts import Net, conv, headed, parameter


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
