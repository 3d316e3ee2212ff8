"""Parts of the small networks that benchmarks.strangers tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
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
