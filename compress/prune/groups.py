"""Group, Cut: which channels of a network go together, and which of them were cut, as values.

Channels that are added, concatenated or convolved depthwise can only be cut together (DepGraph, Fang et al. 2023). A group is
such a set of layers; a unit of it is what is cut or kept as one: a channel, or the channels of an attention head.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

OUT, IN = "out", "in"


@dataclass(frozen=True)
class Member:
    """One layer of a group: unit u owns the indices `units[u]` of its output (`side` OUT) or input (IN) channels.

    A bare tensor has its channels along `dim`, its last dimension above one if that is None. `inner` are convolutions of
    several groups that keep them: each loses as many channels; their inputs are numbered within a group.
    """

    layer: str
    side: str
    units: tuple[tuple[int, ...], ...]
    dim: int | None = None
    inner: bool = False


@dataclass(frozen=True)
class Group:
    """Layers whose channels are cut together, named after the layer whose output channels lead.

    `width` units can be cut; what is kept must be a multiple of `multiple_of` units, and at least one such multiple. A group
    whose channels reach the input or the output of the network is not prunable, and no Group is made of it.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    multiple_of: int = 1


@dataclass(frozen=True)
class Cut:
    """Units that were taken from a group: a step of the history that rebuilds a pruned network from its source."""

    group: str
    units: tuple[int, ...]

    def to_json(self) -> dict[str, object]:
        """Plain data for history.json."""
        return {"group": self.group, "units": list(self.units)}

    @staticmethod
    def from_json(data: Mapping[str, object]) -> Cut:
        """Read `to_json` back."""
        units = data["units"]
        assert isinstance(units, list)
        return Cut(str(data["group"]), tuple(int(u) for u in units))


def gone(groups: Iterable[Group], cuts: Iterable[Cut]) -> dict[tuple[str, str], list[int]]:
    """The indices that `cuts` take from each layer, ascending, by its name and side."""
    named = {group.name: group for group in groups}
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for cut in cuts:
        for member in named[cut.group].members:
            found[member.layer, member.side].update(i for u in cut.units for i in member.units[u])
    return {place: sorted(indices) for place, indices in found.items()}


def groups_after(groups: Sequence[Group], cuts: Sequence[Cut]) -> tuple[Group, ...]:
    """The groups of the network without the units of `cuts`: what is left is numbered anew, as `analyse` would."""
    removed = gone(groups, cuts)
    left = units_left({group.name: group.width for group in groups}, cuts)
    return tuple(replace(g, width=len(left[g.name]), members=_narrowed(g, left[g.name], removed)) for g in groups)


def units_left(widths: Mapping[str, int], cuts: Iterable[Cut]) -> dict[str, list[int]]:
    """The units of each group that `cuts` leave, in order."""
    cut_units: dict[str, set[int]] = defaultdict(set)
    for cut in cuts:
        cut_units[cut.group].update(cut.units)
    return {name: [u for u in range(width) if u not in cut_units[name]] for name, width in widths.items()}


def joined(widths: Mapping[str, int], steps: Iterable[Sequence[Cut]]) -> tuple[Cut, ...]:
    """One cut a group that does what several steps do one after the other, in the units of the first; `widths` are those."""
    left = {name: list(range(width)) for name, width in widths.items()}
    for step in steps:
        kept = units_left({name: len(units) for name, units in left.items()}, step)
        left = {name: [units[u] for u in kept[name]] for name, units in left.items()}
    cuts = (Cut(name, tuple(sorted(set(range(widths[name])) - set(units)))) for name, units in left.items())
    return tuple(cut for cut in cuts if cut.units)


def _narrowed(group: Group, left: Sequence[int], removed: Mapping[tuple[str, str], list[int]]) -> tuple[Member, ...]:
    members = []
    for member in group.members:
        before = removed.get((member.layer, member.side), [])
        units = tuple(tuple(i - bisect_left(before, i) for i in member.units[u]) for u in left)
        members.append(replace(member, units=units))
    return tuple(members)
