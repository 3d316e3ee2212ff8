"""Space `convnet`: dense convolutions, most of which see an image that was halved early.

Multiply-adds of dense 3x3 convolutions on small maps take less time than those of depthwise ones, also in training. Forms whose
stem keeps the resolution learn more slowly, and more in the end.
Blocks are single convolutions as in VGG (Simonyan and Zisserman 2015) with shortcuts, or Fused-MBConv (Gupta and Akin 2020).
Per stage: width and depth. Per block: kernel, skip gate; of fused blocks the expansion, and where both are offered whether it
is dense or an inverted residual (MobileNetV2, Sandler et al. 2018), as in EfficientNetV2 (Tan and Le 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch.nn as nn

from nas.architecture import Architecture, Option
from nas.errors import InvalidSetting, not_known
from nas.plan import ConvSpec
from nas.supernet.blocks import (
    BlockSpec,
    ConvBlock,
    FusedResidual,
    InvertedResidual,
    conv_block_layers,
    fused_residual_layers,
    inverted_residual_layers,
    round8,
)
from search_spaces.staged import DataShape, Macro, Parts, StagedSpace, resolutions, strides, whole_options, width_options

CONV = "conv"
BLOCKS: dict[str, Parts] = {
    CONV: (ConvBlock, conv_block_layers),
    "fused": (FusedResidual, fused_residual_layers),
}
# of a block; from the smaller to the larger one
DEPTHWISE, DENSE = "depthwise", "dense"
EXPANSION = 3  # of inverted residuals
_four_stages = partial(Macro, early_stride=True, halving=(0, 1, 2, 3), stem=24)
_three_stages = partial(Macro, (32, 48, 96), early_stride=True, halving=(0, 2, 1), stem=16)
_full_resolution = partial(Macro, stem=16)
MACROS = (
    _four_stages((48, 96, 192, 384), depth=4, name="four stages, deep"),
    _four_stages((32, 64, 128, 256), depth=2, name="four stages"),
    _four_stages((32, 64, 128, 256), depth=2, depthwise=2, name="four stages, two of them depthwise"),
    _three_stages(depth=3, name="three stages, deep"),
    _three_stages(depth=2, name="three stages"),
    _three_stages(depth=1, name="three stages, shallow"),
    _full_resolution((32, 64, 128, 256), depth=2, halving=(0, 1, 2, 3), name="four stages, full resolution"),
    _full_resolution((32, 64, 128, 256), depth=1, halving=(0, 1, 2, 3), name="four stages, full resolution, shallow"),
    _full_resolution((32, 64, 128), depth=2, halving=(0, 1, 2), name="three stages, full resolution"),
    _full_resolution((16, 32, 64), depth=1, halving=(0, 1, 2), name="three stages, full resolution, shallow"),
    Macro((16, 32), depth=1, early_stride=True, halving=(0, 1), stem=8, name="two stages, narrow", least=8),
)


@dataclass(frozen=True)
class ConvNetOptions:
    """Settings that a user may change with --set; `mixed` lets each block be dense or depthwise."""

    block: str = CONV
    mixed: bool = False
    kernels: tuple[int, ...] = (3,)
    expansions: tuple[int, ...] = (2, 3, 4)
    resolutions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ConvNetSpace(StagedSpace):
    """Settings: those of StagedSpace, the type of the blocks, their kernels and, of fused ones, their expansions.

    `kinds` are by stage what its blocks may be, dense or depthwise; without them all are dense.
    """

    name: ClassVar[str] = "convnet"
    version: ClassVar[int] = 2

    block_type: str = CONV
    kernels: tuple[int, ...] = (3,)
    expansions: tuple[int, ...] = (2, 3, 4)
    kinds: tuple[tuple[str, ...], ...] = ()

    def decisions(self, stage: int) -> tuple[tuple[str, tuple[Option, ...]], ...]:
        """The kernel; the expansion of fused blocks; the kind of the block where that is a choice."""
        kinds = self._kinds(stage)
        decided: list[tuple[str, tuple[Option, ...]]] = [("kernel", self.kernels)]
        if self.block_type != CONV:
            decided.append(("expand", self.expansions))
        return (*decided, ("kind", kinds)) if len(kinds) > 1 else tuple(decided)

    def block(self, channels: tuple[int, int], stride: int | None, decided: Mapping[str, Any]) -> BlockSpec:
        """Read kernel and expansion."""
        hidden = round8(channels[0] * decided.get("expand", EXPANSION), least=8)
        return BlockSpec(*channels, hidden, decided["kernel"], stride or 1, residual=stride is None)

    def parts(self, stage: int, decided: Mapping[str, Any]) -> Parts:
        """Single convolutions, fused residuals, or inverted ones."""
        kind = decided.get("kind") or self._kinds(stage)[0]
        return (InvertedResidual, inverted_residual_layers) if kind == DEPTHWISE else BLOCKS[self.block_type]

    def shared_network(self) -> nn.Module:
        """The largest network, and in blocks that may be of either kind the layers of the other one beside its own."""
        largest = self.largest()
        if all(len(kinds) < 2 for kinds in self.kinds):
            return self.network(largest)
        choices = {name: DEPTHWISE if name.endswith(".kind") else value for name, value in largest.choices.items()}
        shared = self.network(largest)
        _, *others = self.network(Architecture(self.id, choices)).named_modules()  # the first one is the network itself
        for name, child in others:
            where, _, own = name.rpartition(".")
            holder = shared.get_submodule(where)
            if not hasattr(holder, own):
                holder.add_module(own, child)
        return shared

    def _kinds(self, stage: int) -> tuple[str, ...]:
        return self.kinds[stage] if self.kinds else (DENSE,)

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
    dense = len(macro.widths) - macro.depthwise
    both = (DEPTHWISE, DENSE) if options.mixed else ()
    kinds = tuple(both or ((DENSE,) if stage < dense else (DEPTHWISE,)) for stage in range(len(macro.widths)))
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
        kinds=kinds if {k for of_stage in kinds for k in of_stage} != {DENSE} else (),
    )
