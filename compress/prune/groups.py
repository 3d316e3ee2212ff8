"""Group, Cut: which channels of a network go together, and which of them were cut, as values.

Channels that are added, concatenated or convolved depthwise can only be cut together (DepGraph, Fang et al. 2023). A group is
such a set of layers; a unit of it is what is cut or kept as one: a channel, or the channels of an attention head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OUT, IN = "out", "in"


@dataclass(frozen=True)
class Member:
    """One layer of a group: unit u owns the indices `units[u]` of its output (`side` OUT) or input (IN) channels."""

    layer: str
    side: str
    units: tuple[tuple[int, ...], ...]


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
