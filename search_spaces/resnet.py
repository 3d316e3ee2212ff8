"""Space `resnet`: basic or bottleneck residual blocks (He et al. 2016); `widen` is the axis of Wide ResNet (2016).

Per stage: width and depth. Per block: ratio of the inner width, skip gate. Per network: resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nas.architecture import Option
from nas.errors import InvalidSetting, not_known
from nas.plan import ConvSpec
from nas.supernet.blocks import BasicBlock, BlockSpec, Bottleneck, basic_block_layers, bottleneck_layers, round8
from search_spaces.staged import DataShape, Macro, Parts, StagedSpace, resolutions, strides, width_options

MACROS = (
    Macro((64, 128, 256, 512), depth=4),
    Macro((64, 128, 256, 512), depth=3),
    Macro((32, 64, 128, 256), depth=3, early_stride=True, halving=(0, 1, 2, 3), stem=16),
    Macro((32, 64, 128), depth=4),
    Macro((24, 48, 96), depth=3),
    Macro((16, 32, 64), depth=2),
    Macro((16, 32, 64), depth=2, early_stride=True),
    Macro((16, 32, 64), depth=2, early_stride=True, halving=(0, 2, 1), stem=8),
)
WIDE_STEM = 32
# block type -> module, its layers, default ratios of inner to outer width
BLOCKS = {
    "basic": (BasicBlock, basic_block_layers, (0.5, 0.75, 1.0)),
    "bottleneck": (Bottleneck, bottleneck_layers, (0.25, 0.35, 0.5)),
}


@dataclass(frozen=True)
class ResNetOptions:
    """Settings that a user may change with --set; `widen` divides the depth, and the budget then allows wider stages."""

    block: str = "basic"
    widen: float = 1.0
    ratios: tuple[float, ...] = ()
    resolutions: tuple[int, ...] = ()


@dataclass(frozen=True)
class ResNetSpace(StagedSpace):
    """Settings: those of StagedSpace, block type, and the ratios of inner to outer width by stage."""

    name: ClassVar[str] = "resnet"
    version: ClassVar[int] = 1

    block_type: str = "basic"
    ratios: tuple[tuple[float, ...], ...] = ((1.0,),)

    def decisions(self, stage: int) -> tuple[tuple[str, tuple[Option, ...]], ...]:
        """The ratio of inner to outer width."""
        return (("ratio", self.ratios[stage]),)

    def block(self, channels: tuple[int, int], stride: int | None, decided: Mapping[str, Any]) -> BlockSpec:
        """Read the ratio; shortcuts are everywhere, with a projection in the first block of a stage."""
        hidden = inner_width(channels[1], decided["ratio"])
        return BlockSpec(*channels, hidden, stride=stride or 1, projects=stride is not None)

    def parts(self, stage: int, decided: Mapping[str, Any]) -> Parts:
        """Basic or bottleneck blocks."""
        return BLOCKS[self.block_type][:2]

    @property
    def stem_spec(self) -> ConvSpec:
        """A 3x3 convolution on small images, 7x7 at stride 2 on large ones; narrow stems, of small budgets, stay at 3x3."""
        large = self.stem[1] == 2 and self.resolutions[-1] >= 64 and self.stem[0] >= WIDE_STEM
        return ConvSpec(7 if large else 3, self.stem[1], act="relu")


def inner_width(width: int, ratio: float) -> int:
    """Channels inside a block."""
    return round8(width * ratio, least=8)


def distinct_ratios(ratios: tuple[float, ...], widths: tuple[int, ...]) -> tuple[float, ...]:
    """The ratios that rounding tells apart at every width, from the largest down: one network has one key."""
    kept: list[float] = []
    for ratio in sorted(set(ratios), reverse=True):
        if all(inner_width(w, ratio) < inner_width(w, kept[-1]) for w in widths for _ in kept[-1:]):
            kept.append(ratio)
    return tuple(reversed(kept))


def make(shape: DataShape, macro: Macro, width: float, options: ResNetOptions) -> ResNetSpace:
    """Build the space for a data shape with all base widths multiplied by `width`.

    Raises InvalidSetting for an unknown block type, or a number that is not positive.
    """
    if options.block not in BLOCKS:
        raise InvalidSetting(f"block={not_known(options.block, BLOCKS)}")
    if not all(number > 0 for number in (options.widen, *options.ratios)):
        raise InvalidSetting(f"widen={options.widen}, ratios={options.ratios}: choose positive numbers")
    offered = resolutions(shape, options.resolutions)
    stem_stride, stage_strides = strides(offered[-1], macro)
    outer = 4 if options.block == "bottleneck" else 1
    widths = tuple(width_options(w * width * outer, macro.least) for w in macro.widths)
    ratios = options.ratios or BLOCKS[options.block][2]
    return ResNetSpace(
        shape.channels,
        offered,
        shape.classes,
        widths=widths,
        depth=max(min(2, macro.depth), round(macro.depth / options.widen)),
        stem=(round8((macro.stem or macro.widths[0]) * width, least=8), stem_stride),
        strides=stage_strides,
        block_type=options.block,
        ratios=tuple(distinct_ratios(ratios, w) for w in widths),
    )
