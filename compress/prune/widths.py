"""WidthModel: the plan and the cost of a network in which every group keeps some of its units, without cutting anything.

The channels of convolutions, linear layers and parameters are those that the groups leave them. All else follows from its
inputs: what is pooled, normalized, added or concatenated is as wide as what came in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from compress.prune.groups import IN, OUT, Group
from nas.budget import Cost, Metric
from nas.cost.counting import TOTALS, count
from nas.errors import InvalidSetting
from nas.plan import INPUT, Layer, Plan, Size

Latency = Callable[[Plan], Mapping[str, Metric]]
# elements of an output: those that are left, and those that there were
Share = tuple[int, int]


class Ends(NamedTuple):
    """What is left of a layer: channels on both sides as its groups say, None where they say nothing; shares of its inputs."""

    ins: int | None
    outs: int | None
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class WidthModel:
    """A network as a plan, the groups of its channels, and what tells its time and energy, where something does.

    Layers of the plan have the names that nas.cost.trace gives: those of their modules, without a trailing ".conv".
    """

    plan: Plan
    groups: tuple[Group, ...]
    latency: Latency | None = None
    _seen: dict[tuple[int, Ends], Layer] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def full(self) -> dict[str, int]:
        """The units of all groups: what keeps the network as it is."""
        return {group.name: group.width for group in self.groups}

    def plan_with(self, keep: Mapping[str, int]) -> Plan:
        """The plan of the network whose group g keeps `keep[g]` units, all of them where nothing is said.

        Equals the trace of the network that is really cut, where every unit of a group owns as many channels as the others.
        Raises InvalidSetting for a group that does not exist, or a number of units that it cannot keep.
        """
        left = self._left(keep)
        shares: dict[str, Share] = {INPUT: (1, 1)}
        layers = []
        for place, (layer, ins, outs) in enumerate(self._owned):
            inputs = tuple(shares[name] for name in layer.inputs)
            ends = Ends(self._ins(layer, ins, left), _rest(_cuttable(layer), outs, left), inputs)
            new = self._seen.get((place, ends))
            if new is None:
                new = self._seen[place, ends] = RESIZE.get(layer.op, _following)(layer, ends)
            layers.append(new)
            shares[layer.name] = (new.out_elements, layer.out_elements)
        return replace(self.plan, layers=tuple(layers))

    def cost(self, keep: Mapping[str, int], names: Collection[str] | None = None) -> Cost:
        """What that network costs: all metrics of nas.cost.counting and of `latency`, or those of the given names."""
        plan = self.plan_with(keep)
        counted = count(plan, TOTALS if names is None else names)
        if self.latency is None or (names is not None and set(names) <= set(TOTALS)):
            return counted
        timed = {name: metric for name, metric in self.latency(plan).items() if names is None or name in names}
        return Cost({**counted.metrics, **timed}, counted.uncounted)

    def layers_of(self, group: Group) -> tuple[tuple[Layer, str], ...]:
        """The layers of the plan that `group` cuts, with the side of each; norms are parts of the layers before them."""
        named = {layer.name: layer for layer in self.plan.layers}
        found = ((named.get(_plan_name(member.layer, named)), member.side) for member in group.members)
        return tuple((layer, side) for layer, side in found if layer is not None)

    def _left(self, keep: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Units that are kept and units that there are, by group."""
        left = {}
        for name, units in keep.items():
            group = self._named.get(name)
            if group is None:
                raise InvalidSetting(
                    f"there is no group {name!r} to keep {units} units of; use some of {', '.join(self._named)}"
                )
            if not 1 <= units <= group.width or units % group.multiple_of:
                raise InvalidSetting(
                    f"group {name!r} cannot keep {units} units; keep 1 to {group.width}, a multiple of {group.multiple_of}"
                )
            left[name] = (int(units), group.width)
        return left

    def _ins(self, layer: Layer, owned: Mapping[str, int], left: Mapping[str, tuple[int, int]]) -> int | None:
        """Inputs that are left; of a convolution that keeps its several groups they are told for one of them."""
        if _run(layer.name) not in self._inner:
            return _rest(layer.in_channels, owned, left)
        inside = layer.in_channels // layer.groups
        found = _rest(inside, owned, left)
        return layer.groups * (inside if found is None else found)

    @cached_property
    def _inner(self) -> frozenset[str]:
        named = {layer.name for layer in self.plan.layers}
        return frozenset(_plan_name(m.layer, named) for group in self.groups for m in group.members if m.inner)

    @cached_property
    def _named(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    @cached_property
    def _owned(self) -> tuple[tuple[Layer, Mapping[str, int], Mapping[str, int]], ...]:
        """The layers, and how many of their input and output channels each group owns."""
        named = {layer.name for layer in self.plan.layers}
        channels: dict[tuple[str, str], dict[int, str]] = {}
        for group in self.groups:
            for member in group.members:
                owners = channels.setdefault((_plan_name(member.layer, named), member.side), {})
                owners.update({index: group.name for unit in member.units for index in unit})
        sides = {key: _counts(owners.values()) for key, owners in channels.items()}
        return tuple((x, sides.get((_run(x.name), IN), {}), sides.get((_owner(x, sides), OUT), {})) for x in self.plan.layers)


def _plan_name(module: str, named: Collection[str]) -> str:
    return module if module in named else module.removesuffix(".conv")


def _owner(layer: Layer, sides: Collection[tuple[str, str]]) -> str:
    """The name in the groups of what has the outputs of `layer`; a norm that is a function is in the plan as its parameters."""
    if layer.op == "parameter" and (layer.name, OUT) not in sides:
        return layer.name.rpartition(".")[0]
    return _run(layer.name)


def _run(name: str) -> str:
    """The layer of a plan that a later run of the same module, `name:2`, has its weights from."""
    return name.partition(":")[0]


def _cuttable(layer: Layer) -> int:
    """The channels that groups cut: those of a parameter of shape (C, 1, 1) are its rows."""
    return layer.out_size[0] if layer.op == "parameter" and layer.out_channels == 1 else layer.out_channels


def _counts(owners: Collection[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in owners:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _rest(channels: int, owned: Mapping[str, int], left: Mapping[str, tuple[int, int]]) -> int | None:
    """Channels that are left when each group keeps its part of those that it owns; None if no group owns any."""
    if not owned:
        return None
    for name, part in owned.items():
        if name in left:
            units, width = left[name]
            channels -= part - part * units // width
    return channels


# -- one layer


def _scaled(number: int, share: Share) -> int:
    """The same part of `number`, upwards where it is not whole."""
    new, old = share
    return -(-number * new // old)


def _narrower(channels: int, size: Size, share: Share, axes: Sequence[int] = (0, 1, 2)) -> tuple[int, Size]:
    """Channels and size of a tensor of which a part is left, cut along the first of `axes` where that part is whole.

    That is the channels, but where heads are rows (axis 1), or where channels are last (axis 2).
    """
    sides = [channels, *size]
    axis = next((axis for axis in axes if sides[axis] * share[0] % share[1] == 0), axes[0])
    sides[axis] = _scaled(sides[axis], share)
    return sides[0], (sides[1], sides[2])


def _resized(layer: Layer, before: tuple[int, Size], after: tuple[int, Size]) -> Layer:
    return replace(layer, in_channels=before[0], in_size=before[1], out_channels=after[0], out_size=after[1])


def _weighted(layer: Layer, ends: Ends) -> Layer:
    """A convolution or a linear layer. One of several groups loses whole groups, with the inputs and outputs that they have.

    Where it keeps them, its inputs are told. Without groups it loses those inputs alone that are told: where it reads some of
    the channels of a layer, and others of them are cut, it stays as it is.
    """
    if layer.groups > 1 and ends.ins is None:
        share = ends.shares[0] if ends.outs is None else (ends.outs, layer.out_channels)
        ins, outs = _scaled(layer.in_channels, share), _scaled(layer.out_channels, share)
        return replace(layer, in_channels=ins, out_channels=outs, groups=_scaled(layer.groups, share))
    ins = layer.in_channels if ends.ins is None else ends.ins
    return replace(layer, in_channels=ins, out_channels=layer.out_channels if ends.outs is None else ends.outs)


def _parameter(layer: Layer, ends: Ends) -> Layer:
    """A parameter that the network reads by itself has no input to follow."""
    if ends.outs is None:
        return layer
    if layer.out_channels == 1:
        size = (ends.outs, layer.out_size[1])
        return replace(layer, in_size=size, out_size=size)
    return replace(layer, in_channels=ends.outs, out_channels=ends.outs)


def _following(layer: Layer, ends: Ends) -> Layer:
    """Anything that is as wide as its first input."""
    share = ends.shares[0] if ends.shares else (1, 1)
    before = _narrower(layer.in_channels, layer.in_size, share)
    return _resized(layer, before, _narrower(layer.out_channels, layer.out_size, share))


def _elementwise(layer: Layer, ends: Ends) -> Layer:
    """Operands are cut alike, but for those that are broadcast."""
    share = min(ends.shares, key=lambda s: s[0] / s[1], default=(1, 1))
    return _following(layer, ends._replace(shares=(share,)))


def _concat(layer: Layer, ends: Ends) -> Layer:
    """As wide as its inputs together."""
    total = (sum(new for new, _ in ends.shares), sum(old for _, old in ends.shares))
    before = _narrower(layer.in_channels, layer.in_size, ends.shares[0])
    return _resized(layer, before, _narrower(layer.out_channels, layer.out_size, total))


def _pad(layer: Layer, ends: Ends) -> Layer:
    """As many channels of zeros as before, whatever they are added to (option A shortcuts, He et al. 2016)."""
    ins = _scaled(layer.in_channels, ends.shares[0])
    return replace(layer, in_channels=ins, out_channels=ins + layer.out_channels - layer.in_channels)


def _product(layer: Layer, ends: Ends) -> Layer:
    """A matrix product in each head: heads are rows."""
    before = _narrower(layer.in_channels, layer.in_size, ends.shares[0], (1, 0))
    return _resized(layer, before, _narrower(layer.out_channels, layer.out_size, ends.shares[0], (1, 0)))


RESIZE: dict[str, Callable[[Layer, Ends], Layer]] = {
    "conv": _weighted,
    "conv_transpose": _weighted,
    "linear": _weighted,
    "parameter": _parameter,
    "add": _elementwise,
    "mul": _elementwise,
    "elementwise": _elementwise,
    "concat": _concat,
    "pad": _pad,
    "matmul": _product,
}
