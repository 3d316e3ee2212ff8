"""History: what was taken from a network, as a value that rebuilds the smaller network from its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from compress.prune.dependencies import cut
from compress.prune.depth import without
from compress.prune.groups import Cut


@dataclass(frozen=True)
class History:
    """Residual blocks that were removed, and then units that were cut from the groups of what was left."""

    blocks: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()

    def widths_before(self, keep: Mapping[str, int]) -> dict[str, int]:
        """The units that groups had before the cuts, from those that they `keep`."""
        gone = {cut.group: len(cut.units) for cut in self.cuts}
        return {name: units + gone.get(name, 0) for name, units in keep.items()}

    def to_json(self) -> dict[str, object]:
        """Plain data for history.json."""
        return {"blocks": list(self.blocks), "cuts": [cut.to_json() for cut in self.cuts]}

    @staticmethod
    def from_json(data: Mapping) -> History:
        """Read `to_json` back."""
        return History(tuple(data["blocks"]), tuple(Cut.from_json(row) for row in data["cuts"]))


def replay(module: nn.Module, history: History, example: Tensor) -> nn.Module:
    """Take from a copy of `module` what `history` says; weights are those of `module`. Raises InvalidSetting."""
    shorter = without(module, history.blocks) if history.blocks else module
    return cut(shorter, history.cuts, example)
