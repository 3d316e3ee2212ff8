"""ResNets for 32x32 images (He et al. 2016, "Deep residual learning for image recognition", section 4.2).

Three stages of 16, 32 and 64 channels, each of (depth - 2) / 6 blocks of two 3x3 convolutions. Shortcuts are of option A and
have no parameters. Names of parameters are those of https://github.com/akamaster/pytorch_resnet_cifar10, whose weights fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

INPUT_SHAPE = (3, 32, 32)
# what the published weights expect of pixels in 0..1
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CifarResNet(nn.Module):
    """Images (N, 3, H, W) -> logits (N, classes); `depth` is 6n + 2."""

    def __init__(self, depth: int, classes: int = 10) -> None:
        super().__init__()
        assert depth % 6 == 2 and depth > 2, depth
        blocks = (depth - 2) // 6
        self.conv1, self.bn1 = _conv(3, 16), nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, 16, 16)
        self.layer2 = _stage(blocks, 16, 32)
        self.layer3 = _stage(blocks, 32, 64)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; with twice the channels the image is halved.

    Nothing here knows the width between the convolutions, so that it may be cut.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        wider = channels != in_channels
        self.conv1, self.bn1 = _conv(in_channels, channels, 2 if wider else 1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = _conv(channels, channels), nn.BatchNorm2d(channels)
        self.shortcut = PaddedShortcut((channels - in_channels) // 2) if wider else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and `zeros` channels of zeros on both sides, (N, C, H, W) -> (N, C + 2 zeros, ...)."""

    def __init__(self, zeros: int) -> None:
        super().__init__()
        self.zeros = zeros
        # the maximum of one pixel is that pixel: unlike a slice, an operation that every runtime and every tracer knows
        self.every_second = nn.MaxPool2d(1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Sample and pad."""
        return F.pad(self.every_second(x), (0, 0, 0, 0, self.zeros, self.zeros))


CIFAR_RESNETS: Mapping[str, partial[CifarResNet]] = {
    f"cifar-resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)
}


def _conv(in_channels: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)


def _stage(blocks: int, in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(channels if i else in_channels, channels) for i in range(blocks)))
