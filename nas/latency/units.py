"""The units of a latency table: the blocks of a plan whose times add up.

A runtime fuses norms and activations into convolutions and keeps what passes between neighbouring layers in its own layout
and in the cache, so that bare operators, timed one by one, do not sum to the network (docs/benchmarks.md). A unit therefore is
a part of the plan with one input and one output: a residual block is whole, for its input stays alive until the sum; an
expansion, its depthwise convolution and the projection are whole, with or without a shortcut; so is the pooling with its
classifier. What remains is a convolution with all that is fused into it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from nas.cost.counting import params
from nas.plan import INPUT, Layer, Plan

CHANNELS = re.compile(r"\bc(\d+)")


@dataclass(frozen=True)
class Unit:
    """A part of a plan that is timed by itself. `key` says in readable text all that its latency depends on."""

    key: str
    plan: Plan

    @property
    def name(self) -> str:
        """The name of its first layer in the network that it was cut from."""
        return self.plan.layers[0].name

    @property
    def weights(self) -> int:
        """Number of parameters."""
        return sum(map(params, self.plan.layers))

    @property
    def border(self) -> int:
        """Values that pass in and out for one image."""
        return self.plan.input_channels * prod(self.plan.input_size) + self.plan.layers[-1].out_elements


def units(plan: Plan) -> tuple[Unit, ...]:
    """Cut `plan` into units, in order: each layer is in exactly one."""
    return tuple(_unit(tuple(part)) for part in _joined(_segments(plan)))


def template(key: str) -> str:
    """The key without its channel counts: units of one template differ in width alone."""
    return CHANNELS.sub("c*", key)


def channels(key: str) -> tuple[int, ...]:
    """The channel counts of a key, in order."""
    return tuple(int(n) for n in CHANNELS.findall(key))


def single_layers(plan: Plan) -> tuple[Unit, ...]:
    """Every layer as a unit of its own: the plain operator table, which benchmarks compare with."""
    return tuple(_unit((layer,)) for layer in plan.layers)


def segments(plan: Plan) -> tuple[Unit, ...]:
    """Units without joining: every layer between two points that all data passes, which benchmarks compare with."""
    return tuple(_unit(tuple(part)) for part in _segments(plan))


# -- cutting


def _segments(plan: Plan) -> list[list[Layer]]:
    """Cut wherever the output of one layer is all that later layers read."""
    last_reader = {name: i for i, layer in enumerate(plan.layers) for name in layer.inputs}
    result: list[list[Layer]] = []
    part: list[Layer] = []
    reach = last_reader.get(INPUT, 0)  # the last reader of anything but the newest output
    for i, layer in enumerate(plan.layers):
        part.append(layer)
        if reach <= i:
            result.append(part)
            part = []
        reach = max(reach, last_reader.get(layer.name, i))
    return [*result, part] if part else result


def _joined(parts: list[list[Layer]]) -> list[list[Layer]]:
    """Join what a runtime works through in one go: see the rules of JOINS."""
    result: list[list[Layer]] = []
    at = 0
    while at < len(parts):
        length = max(rule(parts[at:]) for rule in JOINS)
        result.append([layer for part in parts[at : at + length] for layer in part])
        at += length
    return result


def _inverted_residual(parts: Sequence[list[Layer]]) -> int:
    """1x1 expansion and shuffle, where there are any, depthwise convolution, what gates its channels, linear 1x1 projection."""
    at = int(_pointwise(parts[0]) and parts[0][0].act != "")
    at += int(at == 1 and len(parts) > 1 and parts[1][0].op == "shuffle")
    if not (len(parts) > at + 1 and _depthwise(parts[at])):
        return 1
    length = at + 1
    while length < len(parts) and not any(
        layer.op in ("conv", "linear") and len(parts[length]) == 1 for layer in parts[length]
    ):
        length += 1
    closes = length < len(parts) and _pointwise(parts[length]) and not parts[length][0].act
    return length + 1 if closes else 1


def _classifier(parts: Sequence[list[Layer]]) -> int:
    """Global pooling and the linear layer after it."""
    return 2 if len(parts) > 1 and parts[0][-1].op == "pool" and parts[1][0].op == "linear" else 1


JOINS = (_inverted_residual, _classifier)


def _pointwise(part: list[Layer]) -> bool:
    layer = part[0]
    window = (layer.kernel, layer.stride) == ((1, 1), (1, 1))
    return len(part) == 1 and layer.op == "conv" and window and not _is_depthwise(layer)


def _depthwise(part: list[Layer]) -> bool:
    return len(part) == 1 and part[0].op == "conv" and _is_depthwise(part[0])


def _is_depthwise(layer: Layer) -> bool:
    return layer.groups == layer.in_channels == layer.out_channels and layer.groups > 1


# -- naming


@lru_cache(maxsize=100_000)
def _unit(layers: tuple[Layer, ...]) -> Unit:
    outside = {name for layer in layers for name in layer.inputs} - {layer.name for layer in layers}
    first = layers[0]
    number = {name: 0 for name in outside} | {layer.name: i + 1 for i, layer in enumerate(layers)}
    texts = [f"c{first.in_channels} {_size(first.in_size)}"]
    texts += [_describe(layer, [number[name] for name in layer.inputs], i) for i, layer in enumerate(layers)]
    names = {name: INPUT for name in outside}
    inner = tuple(_renamed(layer, names) for layer in layers)
    return Unit(" | ".join(texts), Plan(first.in_channels, first.in_size, inner))


def _renamed(layer: Layer, names: dict[str, str]) -> Layer:
    return replace(layer, inputs=tuple(names.get(n, n) for n in layer.inputs))


def _describe(layer: Layer, inputs: list[int], before: int) -> str:
    """Operation, window, channels, groups, activation; inputs only where they are not the layer before."""
    words = [layer.op]
    if layer.kernel != (1, 1) or layer.stride != (1, 1) or layer.op == "conv":
        words.append(_size(layer.kernel) + (f"/{layer.stride[0]}" if layer.stride != (1, 1) else ""))
    words.append(f"c{layer.out_channels}")
    if layer.groups > 1:
        words.append("depthwise" if _is_depthwise(layer) else f"g{layer.groups}")
    words += [layer.act] * bool(layer.act)
    if (layer.weight_bits, layer.act_bits) != (32, 32):
        words.append(f"w{layer.weight_bits}a{layer.act_bits}")
    if inputs != [before]:
        words.append(f"({','.join(map(str, inputs))})")
    return " ".join(words)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
