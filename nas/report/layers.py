"""The layers of the delivered network and of the one that it is compared with, and the blocks that they form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.rundir import RunDir

FILE = "layers.json"
# number formats that round nothing
FULL = ("32", "fp32")


@dataclass(frozen=True)
class LayerRow:
    """One layer as layers.json has it; None is what is not known of it. Sizes are (channels, height, width)."""

    name: str
    op: str
    taken: tuple[int, int, int]
    given: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    act: str
    weight_bits: str
    macs: int | None
    params: int | None
    ms: float | None = None

    @property
    def weighty(self) -> bool:
        """Whether it has work or weights of its own."""
        return bool(self.macs or self.params)


@dataclass(frozen=True)
class Block:
    """Layers that run one after the other and share a name."""

    name: str
    layers: tuple[LayerRow, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds, of the layers where they are known."""
        return sum(x.macs or 0 for x in self.layers)

    @property
    def width(self) -> int:
        """Channels of its output."""
        return self.layers[-1].given[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its output."""
        return self.layers[-1].given[1:]

    @property
    def kernel(self) -> int:
        """The largest window of a convolution in it, 0 if there is none."""
        return max((max(x.kernel) for x in self.layers if x.op == "conv"), default=0)

    @property
    def stride(self) -> int:
        """The largest stride in it."""
        return max(max(x.stride) for x in self.layers)

    @property
    def skip(self) -> bool:
        """Whether what comes in is added to what goes out."""
        return any(x.op == "add" for x in self.layers)

    @property
    def bits(self) -> tuple[str, ...]:
        """Number formats of its weights, such as `8`; empty where none is rounded."""
        known = {x.weight_bits for x in self.layers if x.weighty}
        return tuple(sorted(known)) if known - set(FULL) else ()


@dataclass(frozen=True)
class BlockCost:
    """Multiply-adds of a block in the chosen network and in the reference; None where it has no such block."""

    name: str
    chosen: int | None
    reference: int | None


@dataclass(frozen=True)
class Layers:
    """The layers of network `key`, and of `reference`, the network that `reference_name` tells; `image` is what both read."""

    key: str
    chosen: tuple[LayerRow, ...]
    reference: tuple[LayerRow, ...]
    reference_name: str
    image: tuple[int, int, int]

    @property
    def costs(self) -> list[BlockCost]:
        """The blocks of both, in order of execution."""
        ours, theirs = ({b.name: b.macs for b in blocks(rows)} for rows in (self.chosen, self.reference))
        return [BlockCost(name, ours.get(name), theirs.get(name)) for name in merged(list(ours), list(theirs))]


def read_layers(run: RunDir, key: str, bits: Mapping[str, str]) -> Layers | None:
    """The layers of network `key`, None if layers.json is not there or of another; `bits` are those of quantized layers."""
    found = run.record_if_there(FILE)
    if found.get("key") != key:
        return None
    chosen, reference = (tuple(map(_row, found["networks"][name])) for name in ("chosen", "reference"))
    chosen = tuple(_with_bits(row, bits) for row in chosen)
    channels, height, width = found["image"]
    return Layers(key, chosen, reference, found["reference"], (channels, height, width))


def blocks(rows: Sequence[LayerRow]) -> list[Block]:
    """Join layers that follow one another and are named after the same part; what has no work joins what is before it."""
    groups: list[tuple[str, list[LayerRow]]] = []
    for row in rows:
        name = block_name(row.name)
        nameless = not row.weighty and "." not in row.name
        if groups and (groups[-1][0] == name or nameless):
            groups[-1][1].append(row)
        elif row.weighty or groups:
            groups.append((name, [row]))
    return [Block(name, tuple(mine)) for name, mine in groups]


def block_name(layer: str) -> str:
    """`stages.1.0` of `stages.1.0.expand`, `features.3` of `features.3.conv.0.0`, `stem` of `stem`."""
    match = re.match(r"[^.]*[^.\d][^.]*(\.\d+)+|[^.]+\.[^.]*\d[^.]*(?=\.)|[^.]+", layer)
    return match[0] if match else layer


def merged(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Both lists of names in one, each in its order."""
    result: list[str] = []
    rest = list(theirs)
    for name in ours:
        if name in rest:
            at = rest.index(name) + 1
            result, rest = result + rest[:at], rest[at:]
        elif name not in result:
            result.append(name)
    return result + rest


def _row(line: Mapping[str, Any]) -> LayerRow:
    return LayerRow(
        name=line["name"],
        op=line["op"],
        taken=tuple(line["in"]),
        given=tuple(line["out"]),
        kernel=tuple(line["kernel"]),
        stride=tuple(line["stride"]),
        groups=line["groups"],
        act=line["act"],
        weight_bits=str(line["weight_bits"]),
        macs=line.get("macs"),
        params=line.get("params"),
        ms=line.get("ms"),
    )


def _with_bits(row: LayerRow, bits: Mapping[str, str]) -> LayerRow:
    """With the format of its weights; `stem` may be called `stem.conv` where its parts are told apart."""
    inside = [name for name in bits if name.startswith(f"{row.name}.")]
    name = row.name if row.name in bits else inside[0] if len(inside) == 1 else None
    return row if name is None else replace(row, weight_bits=bits[name])
