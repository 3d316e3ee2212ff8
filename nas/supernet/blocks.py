"""The plain blocks that networks of the spaces are made of, and their plans side by side.

A delivered network consists of these modules and nothing else. Each block class has a twin `*_layers` function that
describes it as plan layers; the contract test `plan(arch) == trace(network(arch))` keeps the two the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn as nn
from torch import Tensor

from nas.plan import ConvSpec, Layer, Size, conv

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "hardsigmoid": nn.Hardsigmoid}
SE_REDUCTION = 4


def round8(channels: float, least: int = 16) -> int:
    """Round to a multiple of 8, at least `least`: the widths that hardware likes."""
    return max(least, int(channels / 8 + 0.5) * 8)


class ConvNormAct(nn.Module):
    """Convolution, optional batch norm, optional activation: (N, C_in, H, W) -> (N, C_out, H/stride, W/stride)."""

    def __init__(self, channels: tuple[int, int], spec: ConvSpec) -> None:
        super().__init__()
        window = (spec.kernel, spec.stride, spec.kernel // 2)
        self.conv = nn.Conv2d(*channels, *window, groups=spec.groups, bias=spec.bias)
        self.norm = nn.BatchNorm2d(channels[1]) if spec.norm else None
        self.act = ACTIVATIONS[spec.act](inplace=True) if spec.act else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution, then what is there of norm and activation."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.act is None else self.act(x)


@dataclass(frozen=True)
class BlockSpec:
    """One residual block. `hidden` is the inner width; `residual` adds the input to the output, `projects` projects it first.

    The first block of a stage projects at any width, so that a subnet has no weights that the largest network lacks. `groups`
    are those of the 1x1 convolutions of an inverted residual.
    """

    in_channels: int
    out_channels: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    squeeze_excite: bool = False
    residual: bool = True
    projects: bool = False
    groups: int = 1


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al. 2018) with a hard sigmoid: (N, C, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = round8(channels / SE_REDUCTION, least=8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = ConvNormAct((channels, inner), ConvSpec(norm=False, bias=True, act="relu"))
        self.expand = ConvNormAct((inner, channels), ConvSpec(norm=False, bias=True, act="hardsigmoid"))

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel by a gate in 0..1."""
        return x * self.expand(self.reduce(self.pool(x)))


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, linear project 1x1 (MobileNetV2, Sandler et al. 2018).

    Groups of 1x1 convolutions exchange channels by a shuffle after the expansion (FBNet, Wu et al. 2019).
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        expand, depthwise, project = _inverted_convs(spec)
        self.expand = ConvNormAct((spec.in_channels, spec.hidden), expand)
        self.shuffle = nn.ChannelShuffle(spec.groups) if spec.groups > 1 else None
        self.depthwise = ConvNormAct((spec.hidden, spec.hidden), depthwise)
        self.se = SqueezeExcite(spec.hidden) if spec.squeeze_excite else None
        self.project = ConvNormAct((spec.hidden, spec.out_channels), project)
        self.residual = spec.residual

    @property
    def last(self) -> ConvNormAct:
        """The convolution whose output is added to the shortcut."""
        return self.project

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""
        y = self.expand(x)
        if self.shuffle is not None:
            y = self.shuffle(y)
        y = self.depthwise(y)
        if self.se is not None:
            y = self.se(y)
        y = self.project(y)
        return x + y if self.residual else y


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet, He et al. 2016); `hidden` is the width between them."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.conv1 = ConvNormAct((spec.in_channels, spec.hidden), ConvSpec(3, spec.stride, act="relu"))
        self.last = ConvNormAct((spec.hidden, spec.out_channels), ConvSpec(3))
        self.shortcut = _shortcut(spec)
        self.act = nn.ReLU(inplace=True)
        self.residual = True

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""
        y = self.last(self.conv1(x))
        return self.act(y + (x if self.shortcut is None else self.shortcut(x)))


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand with a shortcut (ResNet, He et al. 2016); the stride is on the 3x3."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.conv1 = ConvNormAct((spec.in_channels, spec.hidden), ConvSpec(act="relu"))
        self.conv2 = ConvNormAct((spec.hidden, spec.hidden), ConvSpec(3, spec.stride, act="relu"))
        self.last = ConvNormAct((spec.hidden, spec.out_channels), ConvSpec())
        self.shortcut = _shortcut(spec)
        self.act = nn.ReLU(inplace=True)
        self.residual = True

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""
        y = self.last(self.conv2(self.conv1(x)))
        return self.act(y + (x if self.shortcut is None else self.shortcut(x)))


class FusedResidual(nn.Module):
    """Expand by a dense convolution, linear project 1x1 (Fused-MBConv, Gupta and Akin 2020)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        expand, project = _fused_convs(spec)
        self.expand = ConvNormAct((spec.in_channels, spec.hidden), expand)
        self.last = ConvNormAct((spec.hidden, spec.out_channels), project)
        self.residual = spec.residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""
        y = self.last(self.expand(x))
        return x + y if self.residual else y


class ConvBlock(nn.Module):
    """One dense convolution, as in VGG (Simonyan and Zisserman 2015), with a shortcut where it keeps the shape."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.last = ConvNormAct((spec.in_channels, spec.out_channels), ConvSpec(spec.kernel, spec.stride))
        self.act = nn.ReLU(inplace=True)
        self.residual = spec.residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H/stride, W/stride)."""
        y = self.last(x)
        return self.act(x + y if self.residual else y)


RESIDUAL_BLOCKS = (InvertedResidual, BasicBlock, Bottleneck, FusedResidual, ConvBlock)


# -- the same blocks as plan layers


def inverted_residual_layers(name: str, source: str, size: Size, spec: BlockSpec) -> list[Layer]:
    """Layers of `InvertedResidual`."""
    expand, depthwise, project = _inverted_convs(spec)
    layers = [conv(f"{name}.expand", source, (spec.in_channels, spec.hidden), size, expand)]
    if spec.groups > 1:
        layers.append(shuffle(f"{name}.shuffle", layers[-1], spec.groups))
    layers.append(conv(f"{name}.depthwise", layers[-1].name, (spec.hidden, spec.hidden), size, depthwise))
    if spec.squeeze_excite:
        layers.extend(_squeeze_excite_layers(f"{name}.se", layers[-1]))
    layers.append(conv(f"{name}.project", layers[-1].name, (spec.hidden, spec.out_channels), layers[-1].out_size, project))
    if spec.residual:
        layers.append(add(f"{name}.add", (source, layers[-1].name), layers[-1]))
    return layers


def basic_block_layers(name: str, source: str, size: Size, spec: BlockSpec) -> list[Layer]:
    """Layers of `BasicBlock`."""
    first = conv(f"{name}.conv1", source, (spec.in_channels, spec.hidden), size, ConvSpec(3, spec.stride, act="relu"))
    last = conv(f"{name}.last", first.name, (spec.hidden, spec.out_channels), first.out_size, ConvSpec(3))
    return [first, last, *_close(name, source, size, spec, last)]


def bottleneck_layers(name: str, source: str, size: Size, spec: BlockSpec) -> list[Layer]:
    """Layers of `Bottleneck`."""
    first = conv(f"{name}.conv1", source, (spec.in_channels, spec.hidden), size, ConvSpec(act="relu"))
    second = conv(f"{name}.conv2", first.name, (spec.hidden, spec.hidden), size, ConvSpec(3, spec.stride, act="relu"))
    last = conv(f"{name}.last", second.name, (spec.hidden, spec.out_channels), second.out_size, ConvSpec())
    return [first, second, last, *_close(name, source, size, spec, last)]


def fused_residual_layers(name: str, source: str, size: Size, spec: BlockSpec) -> list[Layer]:
    """Layers of `FusedResidual`."""
    expand, project = _fused_convs(spec)
    first = conv(f"{name}.expand", source, (spec.in_channels, spec.hidden), size, expand)
    last = conv(f"{name}.last", first.name, (spec.hidden, spec.out_channels), first.out_size, project)
    return [first, last, *([add(f"{name}.add", (source, last.name), last)] if spec.residual else [])]


def conv_block_layers(name: str, source: str, size: Size, spec: BlockSpec) -> list[Layer]:
    """Layers of `ConvBlock`."""
    act = "" if spec.residual else "relu"  # the activation follows the sum, where there is one
    only = conv(
        f"{name}.last", source, (spec.in_channels, spec.out_channels), size, ConvSpec(spec.kernel, spec.stride, act=act)
    )
    return [only, *([add(f"{name}.add", (source, only.name), only, act="relu")] if spec.residual else [])]


def head_layers(name: str, source: str, channels: tuple[int, int], size: Size) -> list[Layer]:
    """Global average pooling and a linear classifier from channels[0] features to channels[1] classes."""
    features, classes = channels
    pool = Layer(f"{name}.pool", "pool", (source,), features, features, size, (1, 1))
    return [pool, Layer(name, "linear", (pool.name,), features, classes, (1, 1), (1, 1), bias=True)]


def add(name: str, inputs: tuple[str, ...], like: Layer, act: str = "") -> Layer:
    """Elementwise sum of equally shaped outputs."""
    return Layer(name, "add", inputs, like.out_channels, like.out_channels, like.out_size, like.out_size, act=act)


def shuffle(name: str, source: Layer, groups: int) -> Layer:
    """Interleave the channels of groups (ShuffleNet, Zhang et al. 2018)."""
    channels, size = source.out_channels, source.out_size
    return Layer(name, "shuffle", (source.name,), channels, channels, size, size, groups=groups)


def _inverted_convs(spec: BlockSpec) -> tuple[ConvSpec, ConvSpec, ConvSpec]:
    expand, project = ConvSpec(groups=spec.groups, act="relu"), ConvSpec(groups=spec.groups)
    return expand, ConvSpec(spec.kernel, spec.stride, spec.hidden, act="relu"), project


def _fused_convs(spec: BlockSpec) -> tuple[ConvSpec, ConvSpec]:
    return ConvSpec(spec.kernel, spec.stride, act="relu"), ConvSpec()


def _shortcut(spec: BlockSpec) -> ConvNormAct | None:
    return ConvNormAct((spec.in_channels, spec.out_channels), ConvSpec(1, spec.stride)) if spec.projects else None


def _close(name: str, source: str, size: Size, spec: BlockSpec, last: Layer) -> Sequence[Layer]:
    """The shortcut convolution, where there is one, and the sum of a ResNet block."""
    if not spec.projects:
        return [add(f"{name}.add", (last.name, source), last, act="relu")]
    shortcut = conv(f"{name}.shortcut", source, (spec.in_channels, spec.out_channels), size, ConvSpec(1, spec.stride))
    return [shortcut, add(f"{name}.add", (last.name, shortcut.name), last, act="relu")]


def _squeeze_excite_layers(name: str, source: Layer) -> list[Layer]:
    channels, inner = source.out_channels, round8(source.out_channels / SE_REDUCTION, least=8)
    pool = Layer(f"{name}.pool", "pool", (source.name,), channels, channels, source.out_size, (1, 1))
    spec = ConvSpec(norm=False, bias=True, act="relu")
    reduce = conv(f"{name}.reduce", pool.name, (channels, inner), (1, 1), spec)
    spec = ConvSpec(norm=False, bias=True, act="hardsigmoid")
    expand = conv(f"{name}.expand", reduce.name, (inner, channels), (1, 1), spec)
    size = source.out_size
    return [pool, reduce, expand, Layer(f"{name}.scale", "mul", (source.name, expand.name), channels, channels, size, size)]
