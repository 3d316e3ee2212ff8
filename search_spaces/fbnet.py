"""Space `fbnet`: a chain of layers of fixed widths, each of which takes one of nine operators (FBNet, Wu et al. 2019).

An operator is an inverted residual with kernel k3 or k5 and expansion e1, e3 or e6; e1 also with its 1x1 convolutions in two
groups (g2) and a channel shuffle after the first. It adds its input where it keeps the shape. `skip` leaves out a layer that
keeps the shape; one that changes the shape is reduced to a 1x1 convolution with its stride, norm and activation.

All operators of a layer are slices of its largest, k5_e6: a smaller kernel is the centre, a smaller expansion the leading
channels, a grouped convolution the leading inputs. The convolution of `skip` is the projection of e1 without what comes before
it: it reads the layer's input instead of as many hidden channels, so the largest network has all weights and uses them all.

At 224 pixels and width 1 the macro-architecture is the published one; at 32 pixels it is the one that HW-NAS-Bench (Li et al.
2021) measured for CIFAR-100: stem and second stage have stride 1 and the last convolution 1504 channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import torch.nn as nn

from nas.architecture import Architecture, Choice, SearchSpace
from nas.errors import InvalidSetting
from nas.plan import ConvSpec, Layer, PlanBlock, Size, conv, out_size
from nas.supernet.blocks import BlockSpec, ConvNormAct, InvertedResidual, head_layers, inverted_residual_layers, round8
from search_spaces.staged import DataShape, Macro, StagedNetwork, resolutions, strides

SKIP = "skip"
# kernel, expansion, groups of the 1x1 convolutions; the last one has all weights
OPERATORS = {
    "k3_e1_g2": (3, 1, 2),
    "k3_e1": (3, 1, 1),
    "k5_e1_g2": (5, 1, 2),
    "k5_e1": (5, 1, 1),
    "k3_e3": (3, 3, 1),
    "k5_e3": (5, 3, 1),
    "k3_e6": (3, 6, 1),
    "k5_e6": (5, 6, 1),
}
# channels of the last convolution on images from 64 pixels on, and on smaller ones
FEATURES, FEATURES_OF_SMALL_IMAGES = 1984, 1504
# `depth` is that of the stages between the first and the last, which have one layer each
MACROS = (
    Macro((16, 24, 32, 64, 112, 184, 352), depth=4),
    Macro((16, 24, 32, 64, 112, 184, 352), depth=2),
    Macro((16, 24, 40, 80, 112), depth=3),
    Macro((16, 24, 40, 56), depth=3),
    Macro((16, 24, 32, 40), depth=3),
    Macro((16, 24, 32), depth=4),
    Macro((16, 24, 32), depth=4, early_stride=True),
    Macro((16, 24, 32), depth=2, early_stride=True),
    Macro((16, 24, 32), depth=2, early_stride=True, halving=(0, 2, 1), stem=8),
)


@dataclass(frozen=True)
class FBNetOptions:
    """Settings that a user may change with --set; `width` takes the published layers at this multiple, whatever the budget."""

    width: float = 0.0
    resolutions: tuple[int, ...] = ()


@dataclass(frozen=True)
class FBNetSpace(SearchSpace):
    """Settings: width, layers and stride of each stage, channels and stride of the stem, channels of the last convolution."""

    name: ClassVar[str] = "fbnet"
    version: ClassVar[int] = 1

    stages: tuple[tuple[int, int, int], ...] = ((16, 1, 1),)
    stem: tuple[int, int] = (16, 1)
    features: int = FEATURES_OF_SMALL_IMAGES

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Resolution, and the operator of each layer."""
        operators = (SKIP, *OPERATORS)
        return (Choice("resolution", self.resolutions), *(Choice(f"l{i}.op", operators) for i in range(len(self._layers))))

    @cached_property
    def blocks(self) -> tuple[PlanBlock, ...]:
        """Stem, layers, head."""
        layers = (
            PlanBlock(f"l{i}", ("resolution", f"l{i}.op"), partial(self._layer_layers, i)) for i in range(len(self._layers))
        )
        stem, head = (PlanBlock(n, ("resolution",), f) for n, f in (("stem", self._stem_layers), ("head", self._head_layers)))
        return (stem, *layers, head)

    def network(self, arch: Architecture) -> nn.Module:
        """Build the plain module of `arch`; see SearchSpace.network."""
        stages: list[dict[int, nn.Module]] = [{} for _ in self.stages]
        for i, (stage, *shape) in enumerate(self._layers):
            spec = _spec(shape, arch.choices[f"l{i}.op"])
            if isinstance(spec, BlockSpec):
                stages[stage][i] = InvertedResidual(spec)
            elif spec is not None:
                stages[stage][i] = nn.Sequential(OrderedDict(project=ConvNormAct((shape[0], shape[1]), spec)))
        stem = ConvNormAct((self.in_channels, self.stem[0]), self._stem_spec)
        last = ConvNormAct((self.stages[-1][0], self.features), ConvSpec(act="relu"))
        return StagedNetwork(stem, stages, last, nn.Linear(self.features, self.classes))

    @cached_property
    def _layers(self) -> tuple[tuple[int, int, int, int], ...]:
        """Stage, input width, output width, stride of each layer."""
        result, before = [], self.stem[0]
        for stage, (width, layers, stride) in enumerate(self.stages):
            for i in range(layers):
                result.append((stage, before, width, 1 if i else stride))
                before = width
        return tuple(result)

    @property
    def _stem_spec(self) -> ConvSpec:
        return ConvSpec(3, self.stem[1], act="relu")

    def _size(self, resolution: int, layer: int) -> Size:
        """Size of the map that layer number `layer` reads."""
        size = out_size((resolution, resolution), self.stem[1])
        for *_, stride in self._layers[:layer]:
            size = out_size(size, stride)
        return size

    def _stem_layers(self, values: Mapping[str, Any], source: str) -> list[Layer]:
        side = values["resolution"]
        return [conv("stem", source, (self.in_channels, self.stem[0]), (side, side), self._stem_spec)]

    def _layer_layers(self, i: int, values: Mapping[str, Any], source: str) -> list[Layer]:
        stage, *shape = self._layers[i]
        spec = _spec(shape, values[f"l{i}.op"])
        name, size = f"stages.{stage}.{i}", self._size(values["resolution"], i)
        if isinstance(spec, BlockSpec):
            return inverted_residual_layers(name, source, size, spec)
        return [] if spec is None else [conv(f"{name}.project", source, (shape[0], shape[1]), size, spec)]

    def _head_layers(self, values: Mapping[str, Any], source: str) -> list[Layer]:
        size = self._size(values["resolution"], len(self._layers))
        last = conv("last", source, (self.stages[-1][0], self.features), size, ConvSpec(act="relu"))
        return [last, *head_layers("classifier", last.name, (self.features, self.classes), size)]


def _spec(shape: list[int], operator: object) -> BlockSpec | ConvSpec | None:
    """What an operator is in a layer of input width, output width and stride `shape`; None: the layer is left out."""
    before, width, stride = shape
    keeps = before == width and stride == 1
    if operator == SKIP:
        return None if keeps else ConvSpec(1, stride, act="relu")
    kernel, expansion, groups = OPERATORS[str(operator)]
    return BlockSpec(before, width, before * expansion, kernel, stride, residual=keeps, groups=groups)


def make(shape: DataShape, macro: Macro, width: float, options: FBNetOptions) -> FBNetSpace:
    """Build the space for a data shape with all widths multiplied by `width`, or by that of the options.

    Raises InvalidSetting for a width that is negative, or a resolution that is no positive whole number.
    """
    if options.width < 0:
        raise InvalidSetting(f"width={options.width} is negative; choose a positive multiple of the published widths")
    if options.width:
        macro, width = MACROS[0], options.width
    offered = resolutions(shape, options.resolutions)
    stem, stage_strides = strides(offered[-1], macro)
    last = len(macro.widths) - 1
    depths = [macro.depth if 0 < s < last else 1 for s in range(last + 1)]
    features = FEATURES if offered[-1] >= 64 else FEATURES_OF_SMALL_IMAGES
    return FBNetSpace(
        shape.channels,
        offered,
        shape.classes,
        stages=tuple((round8(w * width), d, s) for w, d, s in zip(macro.widths, depths, stage_strides, strict=True)),
        stem=(round8((macro.stem or macro.widths[0]) * width, least=macro.stem or 16), stem),
        features=round8(features * width * macro.widths[-1] / MACROS[0].widths[-1]),
    )
