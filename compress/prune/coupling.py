"""Which channels go together: labels that spread along the edges of a dependency graph (DepGraph, Fang et al. 2023).

Every output channel of a layer gets a label, which spreads to wherever that channel is read, normalized, added or scaled.
Where two labels meet they become one. Channels of one label are a unit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from compress.prune.channels import Index, IndexMap


class Port(NamedTuple):
    """The input or output channels of a node; nodes whose inputs are their outputs, such as norms, have outputs only."""

    node: int
    side: str


Unit = dict[Port, tuple[int, ...]]


@dataclass(frozen=True)
class Couplings:
    """A network as ports and edges.

    `widths` are the channels of the ports that layers have; operations have none. Channels that reach a port of `fixed` stay.
    """

    edges: Mapping[Port, Sequence[tuple[Port, Sequence[IndexMap]]]]
    widths: Mapping[Port, int]
    fixed: frozenset[Port]


def units(network: Couplings, roots: Iterable[Port]) -> list[Unit]:
    """What can be cut by itself: for each unit, the channels that it owns of each port of a layer, ascending."""
    labels = _Labels()
    for root in roots:
        channels = [i for i in range(network.widths[root]) if i not in labels.owners[root]]
        _spread(network, labels, root, [Index(i, labels.new()) for i in channels])
    found: dict[int, dict[Port, list[int]]] = defaultdict(lambda: defaultdict(list))
    fixed = set()
    for port, owners in labels.owners.items():
        for index, label in sorted(owners.items()):
            label = labels.find(label)
            if port in network.widths:
                found[label][port].append(index)
            if port in network.fixed or index >= network.widths.get(port, index + 1):
                fixed.add(label)
    return [{port: tuple(i) for port, i in unit.items()} for label, unit in found.items() if label not in fixed]


def _spread(network: Couplings, labels: _Labels, root: Port, channels: list[Index]) -> None:
    """Follow all edges from `root`; each channel of each port is passed on once, so this ends."""
    pending = [(root, channels)]
    while pending:
        port, indices = pending.pop()
        fresh = labels.claim(port, indices)
        if not fresh:
            continue
        for target, mappings in network.edges.get(port, ()):
            mapped = fresh
            for mapping in mappings:
                mapped = mapping(mapped)
            pending.append((target, mapped))


class _Labels:
    """Disjoint sets of labels (union-find), and the label of each channel of each port."""

    def __init__(self) -> None:
        self.parents: list[int] = []
        self.owners: dict[Port, dict[int, int]] = defaultdict(dict)

    def new(self) -> int:
        self.parents.append(len(self.parents))
        return len(self.parents) - 1

    def find(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def claim(self, port: Port, indices: list[Index]) -> list[Index]:
        """Label channels; those that have a label keep it, and both become one. Returns those that had none."""
        owners, fresh = self.owners[port], []
        for index, label in indices:
            if index in owners:
                self.parents[self.find(label)] = self.find(owners[index])
            else:
                owners[index] = label
                fresh.append(Index(index, label))
        return fresh
