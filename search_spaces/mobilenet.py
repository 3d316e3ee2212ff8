"""Space `mobilenet`: inverted residual blocks (MobileNetV2, Sandler et al. 2018) with the elastic dimensions of OFA.

Per stage: width and depth. Per block: expansion, kernel, skip gate, optionally squeeze-excite. Per network: resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nas.architecture import Option
from nas.plan import ConvSpec
from nas.supernet.blocks import BlockSpec, InvertedResidual, inverted_residual_layers, round8
from search_spaces.staged import DataShape, Macro, Parts, StagedSpace, resolutions, strides, whole_options, width_options

HEAD_RATIO = 6
MACROS = (
    Macro((24, 40, 80, 112, 160), depth=4),
    Macro((24, 40, 80, 128), depth=3),
    Macro((24, 40, 80), depth=3),
    Macro((24, 40, 80), depth=2),
    Macro((24, 40, 80), depth=2, early_stride=True),
    Macro((24, 40, 80), depth=2, early_stride=True, halving=(0, 2, 1)),
    Macro((16, 24, 48), depth=1, early_stride=True, halving=(0, 2, 1), stem=8),
)


@dataclass(frozen=True)
class MobileNetOptions:
    """Settings that a user may change with --set."""

    expansions: tuple[int, ...] = (3, 4, 6)
    kernels: tuple[int, ...] = (3, 5, 7)
    squeeze_excite: bool = False
    resolutions: tuple[int, ...] = ()


@dataclass(frozen=True)
class MobileNetSpace(StagedSpace):
    """Settings: those of StagedSpace, kernels by stage, expansions, and whether squeeze-excite is a choice."""

    name: ClassVar[str] = "mobilenet"
    version: ClassVar[int] = 1

    kernels: tuple[tuple[int, ...], ...] = ((3, 5, 7),)
    expansions: tuple[int, ...] = (3, 4, 6)
    squeeze_excite: bool = False

    def decisions(self, stage: int) -> tuple[tuple[str, tuple[Option, ...]], ...]:
        """Expansion and kernel; squeeze-excite where it is a choice."""
        always = (("expand", self.expansions), ("kernel", self.kernels[stage]))
        return (*always, ("se", (False, True))) if self.squeeze_excite else always

    def block(self, channels: tuple[int, int], stride: int | None, decided: Mapping[str, Any]) -> BlockSpec:
        """Read expansion, kernel and squeeze-excite; the hidden width is the expanded input width."""
        return BlockSpec(
            *channels,
            hidden=round8(channels[0] * decided["expand"]),
            kernel=decided["kernel"],
            stride=stride or 1,
            squeeze_excite=decided.get("se", False),
            residual=stride is None,
        )

    def parts(self, stage: int, decided: Mapping[str, Any]) -> Parts:
        """Inverted residuals."""
        return InvertedResidual, inverted_residual_layers

    @property
    def stem_spec(self) -> ConvSpec:
        """A 3x3 convolution."""
        return ConvSpec(3, self.stem[1], act="relu")

    def features(self, width: int) -> int:
        """The last convolution is six times wider than the last stage."""
        return HEAD_RATIO * width


def make(shape: DataShape, macro: Macro, width: float, options: MobileNetOptions) -> MobileNetSpace:
    """Build the space for a data shape with all base widths multiplied by `width`.

    Raises InvalidSetting for an option that is no positive whole number, or an even kernel.
    """
    wanted = whole_options("kernels", options.kernels, odd=True)
    offered = resolutions(shape, options.resolutions)
    stem_stride, stage_strides = strides(offered[-1], macro)
    side, kernels = offered[-1] // stem_stride, []
    for stride in stage_strides:
        # what a kernel has beyond the map that it slides over reads nothing but padding
        kernels.append(tuple(k for k in wanted if k <= max(3, side)) or wanted[:1])
        side //= stride
    return MobileNetSpace(
        shape.channels,
        offered,
        shape.classes,
        widths=tuple(width_options(w * width, macro.least) for w in macro.widths),
        depth=macro.depth,
        stem=(round8((macro.stem or 16) * width, least=8), stem_stride),
        strides=stage_strides,
        kernels=tuple(kernels),
        expansions=whole_options("expansions", options.expansions),
        squeeze_excite=options.squeeze_excite,
    )
