"""Space `convnet`: dense convolutions that halve the image early.

Multiply-adds of dense 3x3 convolutions on small maps take less time than those of depthwise ones, also in training.
Blocks are single convolutions as in VGG (Simonyan and Zisserman 2015) with shortcuts, or Fused-MBConv (Gupta and Akin 2020).
Per stage: width and depth. Per block: kernel, skip gate; of fused blocks the expansion, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from nas.architecture import Option
from nas.errors import InvalidSetting, not_known
from nas.plan import ConvSpec
from nas.supernet.blocks import (
    BlockSpec,
    ConvBlock,
    FusedResidual,
    conv_block_layers,
    fused_residual_layers,
    round8,
)
from search_spaces.staged import DataShape, Macro, Parts, StagedSpace, resolutions, strides, whole_options, width_options

CONV = "conv"
BLOCKS: dict[str, Parts] = {
    CONV: (ConvBlock, conv_block_layers),
    "fused": (FusedResidual, fused_residual_layers),
}
_four_stages = partial(Macro, early_stride=True, halving=(0, 1, 2, 3), stem=24)
_three_stages = partial(Macro, (32, 48, 96), early_stride=True, halving=(0, 2, 1), stem=16)
MACROS = (
    _four_stages((48, 96, 192, 384), depth=4, name="four stages, deep"),
    _four_stages((32, 64, 128, 256), depth=2, name="four stages"),
    _three_stages(depth=3, name="three stages, deep"),
    _three_stages(depth=2, name="three stages"),
    _three_stages(depth=1, name="three stages, shallow"),
    Macro((16, 32), depth=1, early_stride=True, halving=(0, 1), stem=8, name="two stages, narrow", least=8),
)


@dataclass(frozen=True)
class ConvNetOptions:
    """Settings that a user may change with --set."""

    block: str = CONV
    kernels: tuple[int, ...] = (3,)
    expansions: tuple[int, ...] = (2, 3, 4)
    resolutions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ConvNetSpace(StagedSpace):
    """Settings: those of StagedSpace, the type of the blocks, their kernels and, of fused ones, their expansions."""

    name: ClassVar[str] = "convnet"
    version: ClassVar[int] = 1

    block_type: str = CONV
    kernels: tuple[int, ...] = (3,)
    expansions: tuple[int, ...] = (2, 3, 4)

    def decisions(self, stage: int) -> tuple[tuple[str, tuple[Option, ...]], ...]:
        """The kernel; the expansion of fused blocks."""
        kernel = ("kernel", self.kernels)
        return (kernel,) if self.block_type == CONV else (kernel, ("expand", self.expansions))

    def block(self, channels: tuple[int, int], stride: int | None, decided: Mapping[str, Any]) -> BlockSpec:
        """Read kernel and expansion."""
        hidden = round8(channels[0] * decided.get("expand", 1), least=8)
        return BlockSpec(*channels, hidden, decided["kernel"], stride or 1, residual=stride is None)

    def parts(self, stage: int) -> Parts:
        """Single convolutions, or fused residuals."""
        return BLOCKS[self.block_type]

    @property
    def stem_spec(self) -> ConvSpec:
        """A 3x3 convolution."""
        return ConvSpec(3, self.stem[1], act="relu")


def make(shape: DataShape, macro: Macro, width: float, options: ConvNetOptions) -> ConvNetSpace:
    """Build the space for a data shape with all base widths multiplied by `width`.

    Raises InvalidSetting for an unknown block type, an option that is no positive whole number, or an even kernel.
    """
    if options.block not in BLOCKS:
        raise InvalidSetting(f"block={not_known(options.block, BLOCKS)}")
    offered = resolutions(shape, options.resolutions)
    stem_stride, stage_strides = strides(offered[-1], macro)
    return ConvNetSpace(
        shape.channels,
        offered,
        shape.classes,
        widths=tuple(width_options(w * width, macro.least) for w in macro.widths),
        depth=macro.depth,
        stem=(round8(macro.stem * width, least=8), stem_stride),
        strides=stage_strides,
        block_type=options.block,
        kernels=whole_options("kernels", options.kernels, odd=True),
        expansions=whole_options("expansions", options.expansions),
    )
