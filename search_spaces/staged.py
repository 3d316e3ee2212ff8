"""What the spaces have in common: a stem, stages of residual blocks with skip gates, a head."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import torch.nn as nn
from torch import Tensor

from nas.architecture import Architecture, Choice, Clause, Option, SearchSpace
from nas.errors import InvalidSetting
from nas.plan import ConvSpec, Layer, PlanBlock, Size, conv, out_size
from nas.supernet.blocks import BlockSpec, ConvNormAct, head_layers, round8

WIDTH_STEPS = (0.65, 0.8, 1.0)


@dataclass(frozen=True)
class DataShape:
    """What a space has to know of the data."""

    channels: int
    resolution: int
    classes: int


@dataclass(frozen=True)
class Macro:
    """Macro-architecture: base width and deepest depth of each stage.

    `early_stride` halves even small images in the stem; `halving` names the stages that halve them first, and brings small
    images down to 4 pixels. `stem` is the base width of the stem, 0 for that of the first stage, `least` the narrowest stage
    that it is scaled to, `depthwise` the number of last stages whose blocks are depthwise where a space has both kinds. `name`
    says what it is.
    """

    widths: tuple[int, ...]
    depth: int
    early_stride: bool = False
    halving: tuple[int, ...] = ()
    stem: int = 0
    name: str = ""
    least: int = 16
    depthwise: int = 0


def whole_options(name: str, values: tuple[int, ...], odd: bool = False) -> tuple[int, ...]:
    """Options of setting `name`, each once, from small to large.

    Raises InvalidSetting if one is not a positive whole number, or not odd where that is asked for.
    """
    for value in values:
        if not isinstance(value, int) or value < 1 or (odd and value % 2 == 0):
            raise InvalidSetting(f"{name} holds {value}; choose positive {'odd' if odd else 'whole'} numbers")
    return tuple(sorted(set(values)))


def resolutions(shape: DataShape, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Resolutions that a space offers: the wanted ones, else the data's own."""
    return whole_options("resolutions", wanted) or (shape.resolution,)


def stage_choices(stage: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> list[Choice]:
    """Width and depth of a stage, and a skip gate for every block between its first and its last.

    The first block changes the shape and cannot be bypassed; a stage of depth d ends with block d-1, which is therefore
    on; the blocks between have a gate. So each set of active blocks has one encoding.
    """
    choices = [Choice(f"s{stage}.width", widths), Choice(f"s{stage}.depth", depths)]
    for block in range(1, max(depths) - 1):
        deeper = tuple(d for d in depths if d > block + 1)
        choices.append(Choice(f"s{stage}.b{block}.gate", ("skip", "run"), (((f"s{stage}.depth", deeper),),)))
    return choices


def block_active_when(stage: int, block: int, depths: tuple[int, ...]) -> tuple[Clause, ...]:
    """When block `block` of a stage runs: it is the last one, or a deeper one follows and its gate says so."""
    if block == 0:
        return ()
    last: Clause = ((f"s{stage}.depth", (block + 1,)),)
    deeper = tuple(d for d in depths if d > block + 1)
    gated: Clause = ((f"s{stage}.depth", deeper), (f"s{stage}.b{block}.gate", ("run",)))
    return (last, gated) if deeper else (last,)


def width_options(width: float, least: int) -> tuple[int, ...]:
    """Three widths up to `width`, multiples of 8 from `least` channels on."""
    return tuple(sorted({round8(width * step, least) for step in WIDTH_STEPS}))


def depth_options(depth: int) -> tuple[int, ...]:
    """Depths of a stage of at most `depth` blocks; deep stages keep two."""
    return tuple(range(1 if depth < 4 else 2, depth + 1))


def strides(resolution: int, macro: Macro) -> tuple[int, tuple[int, ...]]:
    """Stem stride and stage strides that bring an image down to 4 to 8 pixels.

    Small images (below 64 pixels) get a stride-1 stem unless the budget forces an early stride.
    """
    stages = len(macro.widths)
    # with `halving` the last map has 4 pixels at most, else 4 to 7
    steps = (resolution - 1).bit_length() - 2 if macro.halving else (resolution // 4).bit_length() - 1
    halvings = max(0, min(5, steps))
    stem = 2 if resolution >= 64 or macro.early_stride else 1
    order = macro.halving or {7: (2, 3, 5, 1), 5: (1, 2, 4, 0, 3), 4: (1, 2, 3, 0), 3: (1, 2, 0)}[stages]
    halved = set(order[: max(0, halvings - (stem == 2))])
    return stem, tuple(2 if s in halved else 1 for s in range(stages))


class StagedNetwork(nn.Module):
    """Stem, stages, optional last convolution, pooling, classifier: (N, C, H, W) -> (N, classes).

    Blocks keep the index that they have in the largest network, so that parameter names agree with the supernet's.
    """

    def __init__(self, stem: nn.Module, stages: list[dict[int, nn.Module]], last: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*(nn.Sequential(OrderedDict((str(i), b) for i, b in s.items())) for s in stages))
        self.last = last
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images to logits."""
        x = self.last(self.stages(self.stem(x)))
        return self.classifier(self.pool(x).flatten(1))


# module and layers of a block
Parts = tuple[Callable[[BlockSpec], nn.Module], Callable[[str, str, Size, BlockSpec], list[Layer]]]


@dataclass(frozen=True)
class StagedSpace(SearchSpace):
    """A space of stages of residual blocks. A final subclass gives the decisions of a block and what they stand for.

    Settings: width options and stride of each stage, the deepest stage, channels and stride of the stem.
    """

    widths: tuple[tuple[int, ...], ...] = ((16,),)
    depth: int = 2
    stem: tuple[int, int] = (16, 1)
    strides: tuple[int, ...] = (1,)

    @abstractmethod
    def decisions(self, stage: int) -> tuple[tuple[str, tuple[Option, ...]], ...]:
        """Name and options of each decision of a block in `stage`, besides its skip gate; at least one."""

    @abstractmethod
    def block(self, channels: tuple[int, int], stride: int | None, decided: Mapping[str, Any]) -> BlockSpec:
        """Read the decisions of one block; `stride` is None for one that is not the first of its stage."""

    @abstractmethod
    def parts(self, stage: int, decided: Mapping[str, Any]) -> Parts:
        """Module and layers of a block of `stage` with these decisions."""

    @property
    @abstractmethod
    def stem_spec(self) -> ConvSpec:
        """The first convolution."""

    def features(self, width: int) -> int | None:
        """Channels of the 1x1 convolution before pooling, None where there is none."""
        return None

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Resolution, then stage by stage: width, depth, gates, and the decisions of each block."""
        result = [Choice("resolution", self.resolutions)]
        depths = depth_options(self.depth)
        for s, widths in enumerate(self.widths):
            result += stage_choices(s, widths, depths)
            for b in range(self.depth):
                when = block_active_when(s, b, depths)
                result += [Choice(f"s{s}.b{b}.{name}", options, when) for name, options in self.decisions(s)]
        return tuple(result)

    @cached_property
    def blocks(self) -> tuple[PlanBlock, ...]:
        """Stem, every block of every stage, head."""
        result = [PlanBlock("stem", ("resolution",), self._stem_layers)]
        for s in range(len(self.widths)):
            for b in range(self.depth):
                widths = [f"s{s - 1}.width"] if b == 0 and s > 0 else []
                decided = [f"s{s}.b{b}.{name}" for name, _ in self.decisions(s)]
                names = ("resolution", *widths, f"s{s}.width", *decided)
                result.append(PlanBlock(f"s{s}.b{b}", names, partial(self._block_layers, s, b)))
        return (*result, PlanBlock("head", ("resolution", self._last_width), self._head_layers))

    def network(self, arch: Architecture) -> nn.Module:
        """Build the plain module of `arch`; see SearchSpace.network."""
        values = arch.choices
        stages: list[dict[int, nn.Module]] = []
        for s in range(len(self.widths)):
            blocks = {b: self._block(s, b, values) for b in range(self.depth)}
            stages.append({b: found[1][0](found[0]) for b, found in blocks.items() if found is not None})
        width = cast(int, values[self._last_width])
        features = self.features(width)
        last = ConvNormAct((width, features), ConvSpec(act="relu")) if features else nn.Identity()
        stem = ConvNormAct((self.in_channels, self.stem[0]), self.stem_spec)
        return StagedNetwork(stem, stages, last, nn.Linear(features or width, self.classes))

    @property
    def _last_width(self) -> str:
        return f"s{len(self.widths) - 1}.width"

    def _block(self, s: int, b: int, values: Mapping[str, Any]) -> tuple[BlockSpec, Parts] | None:
        """None: the block is bypassed, for its decisions do not exist."""
        decided = {name: values.get(f"s{s}.b{b}.{name}") for name, _ in self.decisions(s)}
        if None in decided.values():
            return None
        width = values[f"s{s}.width"]
        before = width if b else values[f"s{s - 1}.width"] if s else self.stem[0]
        return self.block((before, width), None if b else self.strides[s], decided), self.parts(s, decided)

    def _size(self, resolution: int, strides: tuple[int, ...]) -> Size:
        size = (resolution, resolution)
        for stride in (self.stem[1], *strides):
            size = out_size(size, stride)
        return size

    def _stem_layers(self, values: Mapping[str, Any], source: str) -> list[Layer]:
        side = values["resolution"]
        return [conv("stem", source, (self.in_channels, self.stem[0]), (side, side), self.stem_spec)]

    def _block_layers(self, s: int, b: int, values: Mapping[str, Any], source: str) -> list[Layer]:
        found = self._block(s, b, values)
        if found is None:
            return []
        spec, (_, layers) = found
        return layers(f"stages.{s}.{b}", source, self._size(values["resolution"], self.strides[: s + (b > 0)]), spec)

    def _head_layers(self, values: Mapping[str, Any], source: str) -> list[Layer]:
        width, size = values[self._last_width], self._size(values["resolution"], self.strides)
        features = self.features(width)
        if features is None:
            return head_layers("classifier", source, (width, self.classes), size)
        last = conv("last", source, (width, features), size, ConvSpec(act="relu"))
        return [last, *head_layers("classifier", last.name, (features, self.classes), size)]
