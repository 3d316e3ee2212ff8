"""Layer, Plan: the plain layers that an architecture stands for, as values.

Multiply-adds, parameters, memory and latency keys are all derived from a plan (see nas/cost). Batch norm and activation
are part of the layer that they follow, as every deployment runtime fuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

Size = tuple[int, int]
INPUT = "input"


@dataclass(frozen=True)
class Layer:
    """One operation with its fused norm and activation.

    `op` is one of nas.cost.counting.MACS; `inputs` are layer names, or "input". Sizes are (height, width), (1, 1) after global
    pooling. `norm` is batch normalization with scale and shift; `act` the name of the activation, "" for none. A layer that
    has not its `own` weights reads those of an earlier layer, or some that the network computes. `inner_macs` and
    `inner_outputs` are multiply-adds and product outputs of a layer that is composed of several operations.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    in_channels: int
    out_channels: int
    in_size: Size
    out_size: Size
    kernel: Size = (1, 1)
    stride: Size = (1, 1)
    groups: int = 1
    bias: bool = False
    norm: bool = False
    act: str = ""
    weight_bits: int = 32
    act_bits: int = 32
    own: bool = True
    inner_macs: int = 0
    inner_outputs: int = 0

    @property
    def out_elements(self) -> int:
        """Number of values that the layer puts out for one image."""
        return self.out_channels * self.out_size[0] * self.out_size[1]


@dataclass(frozen=True)
class Plan:
    """A directed acyclic graph of layers in execution order; the last one is the output."""

    input_channels: int
    input_size: Size
    layers: tuple[Layer, ...]

    def canonical(self) -> Plan:
        """Rename the layers to their position, so that plans compare by structure."""
        names = {INPUT: INPUT, **{layer.name: str(i) for i, layer in enumerate(self.layers)}}
        layers = [replace(x, name=names[x.name], inputs=tuple(names[n] for n in x.inputs)) for x in self.layers]
        return replace(self, layers=tuple(layers))


@dataclass(frozen=True)
class PlanBlock:
    """A part of every plan of a space.

    `build(values, source)` gives its layers when it reads the output named `source`; `values` maps each name of
    `depends_on` to its option, or to None where that decision does not exist. No layers: the block is bypassed.
    """

    name: str
    depends_on: tuple[str, ...]
    build: Callable[[Mapping[str, object], str], Sequence[Layer]]


def assemble(blocks: Sequence[PlanBlock], choices: Mapping[str, object]) -> Plan:
    """Chain the blocks' layers for one architecture's choices."""
    layers: list[Layer] = []
    for block in blocks:
        source = layers[-1].name if layers else INPUT
        layers.extend(block.build({n: choices.get(n) for n in block.depends_on}, source))
    return Plan(layers[0].in_channels, layers[0].in_size, tuple(layers))


def out_size(size: Size, stride: int) -> Size:
    """Output size of a convolution with an odd kernel and half-kernel padding."""
    return ((size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1)


@dataclass(frozen=True)
class ConvSpec:
    """What varies between the convolutions of a block; padding is half the kernel."""

    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = True
    act: str = ""


def conv(name: str, source: str, channels: tuple[int, int], size: Size, spec: ConvSpec) -> Layer:
    """Describe a convolution from channels[0] to channels[1] that reads a map of `size`."""
    return Layer(
        name,
        "conv",
        (source,),
        in_channels=channels[0],
        out_channels=channels[1],
        in_size=size,
        out_size=out_size(size, spec.stride),
        kernel=(spec.kernel, spec.kernel),
        stride=(spec.stride, spec.stride),
        groups=spec.groups,
        bias=spec.bias,
        norm=spec.norm,
        act=spec.act,
    )
