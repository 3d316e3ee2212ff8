"""A small space with every kind of condition: 192 networks among 384 raw assignments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from nas.architecture import Architecture, Choice, SearchSpace
from nas.plan import ConvSpec, Layer, PlanBlock, conv

if TYPE_CHECKING:
    import torch.nn as nn


@dataclass(frozen=True)
class ToySpace(SearchSpace):
    """A stem and one or two blocks. A gate adds an expansion to its block; all expansions have one ratio."""

    name: ClassVar[str] = "toy"
    version: ClassVar[int] = 1

    in_channels: int = 1
    resolutions: tuple[int, ...] = (6, 8)
    classes: int = 3
    widths: tuple[int, ...] = (2, 4)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        second = ((("depth", (2,)),),)
        gates = ((("gate0", (True,)),), (("depth", (2,)), ("gate1", (True,))))
        return (
            Choice("resolution", self.resolutions),
            Choice("width", self.widths),
            Choice("depth", (1, 2)),
            Choice("gate0", (False, True)),
            Choice("kernel0", (3, 5)),
            Choice("gate1", (False, True), second),
            Choice("kernel1", (1, 3, 5), second),
            Choice("ratio", (2, 3), gates),
            Choice("pool", ("avg",)),
        )

    @cached_property
    def blocks(self) -> tuple[PlanBlock, ...]:
        always = ("resolution", "width")
        return (
            PlanBlock("stem", always, self._stem),
            PlanBlock("block0", (*always, "gate0", "kernel0", "ratio"), partial(self._block, 0)),
            PlanBlock("block1", (*always, "gate1", "kernel1", "ratio"), partial(self._block, 1)),
            PlanBlock("head", (*always, "pool"), self._head),
        )

    def _stem(self, values: Mapping[str, Any], source: str) -> list[Layer]:
        size = (values["resolution"], values["resolution"])
        return [conv("stem", source, (self.in_channels, values["width"]), size, ConvSpec(3, 2, act="relu"))]

    def _block(self, index: int, values: Mapping[str, Any], source: str) -> list[Layer]:
        kernel, width, size = values[f"kernel{index}"], values["width"], (values["resolution"] // 2,) * 2
        if kernel is None:
            return []
        hidden, layers = width, []
        if values[f"gate{index}"]:
            hidden = width * values["ratio"]
            layers = [conv(f"blocks.{index}.expand", source, (width, hidden), size, ConvSpec(act="relu"))]
            source = layers[0].name
        return [*layers, conv(f"blocks.{index}.last", source, (hidden, width), size, ConvSpec(kernel, act="relu"))]

    def _head(self, values: Mapping[str, Any], source: str) -> list[Layer]:
        width, size = values["width"], (values["resolution"] // 2,) * 2
        pool = Layer("pool", "pool", (source,), width, width, size, (1, 1))
        return [pool, Layer("classifier", "linear", ("pool",), width, self.classes, (1, 1), (1, 1), bias=True)]

    def network(self, arch: Architecture) -> nn.Module:
        from collections import OrderedDict  # torch is only needed by tests that build a network

        import torch.nn as nn

        def unit(layer: Layer) -> nn.Sequential:
            window = (layer.kernel[0], layer.stride[0], layer.kernel[0] // 2)
            parts = (nn.Conv2d(layer.in_channels, layer.out_channels, *window, bias=False), nn.BatchNorm2d(layer.out_channels))
            return nn.Sequential(*parts, nn.ReLU())

        module = nn.Sequential(OrderedDict())
        for layer in self.plan(arch).layers:
            if layer.op == "conv":
                module.add_module(layer.name.replace(".", "_"), unit(layer))
        module.add_module("pool", nn.AdaptiveAvgPool2d(1))
        module.add_module("flatten", nn.Flatten())
        module.add_module("classifier", nn.Linear(arch.choices["width"], self.classes))
        return module
