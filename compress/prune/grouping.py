"""From the labels of channels to groups: which channels of which layers go together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.prune.execution import FAILURES, Order, reason
from compress.prune.groups import IN, OUT, Group, Member
from compress.prune.labels import FIXED, FREE
from compress.prune.layer_rules import LAYERS
from compress.prune.operation_rules import follow
from compress.prune.slices import last_dim
from compress.prune.tracking import WEIGHTED, Port, Tracker, tensors_of, tracking
from nas.cost.evaluation_mode import evaluation_mode
from nas.errors import InvalidSetting

Unit = dict[Port, tuple[int, ...]]


def groups_of(tracker: Tracker, order: Order) -> list[Group]:
    """All groups, but those led by layers that others claimed."""
    place = partial(_place, order)
    writers = {name for name, layer in tracker.layers.items() if isinstance(layer, WEIGHTED)} - tracker.claimed
    found: dict[tuple[tuple[Port, int], ...], list[Unit]] = defaultdict(list)
    for unit in sorted(_units(tracker), key=lambda unit: _first(unit, place)):
        found[tuple(sorted((port, len(owned)) for port, owned in unit.items()))].append(unit)
    groups: dict[str, Group] = {}
    for alike in found.values():
        ports = [port for port in sorted(alike[0], key=place) if _is_member(tracker, port)]
        members = [_member(tracker, port, alike) for port in ports]
        leading = next((m.layer for m in members if m.side == OUT and m.layer in writers), None)
        if leading is not None and len(alike) > 1 and any(m.side == IN for m in members):
            name = _unused(leading, groups)
            groups[name] = Group(name, len(alike), tuple(members))
    return list(groups.values())


def followed(network: nn.Module, example: Tensor, claimed: Collection[str] = (), inner: Collection[str] = ()) -> Tracker:
    """Labels of all channels after one run. Raises InvalidSetting if it cannot be run."""
    tracker = Tracker(network, frozenset(claimed), frozenset(inner))
    example = example.clone()
    tracker.put(example, torch.tensor(FIXED).expand(example.shape))
    try:
        with torch.no_grad(), evaluation_mode(network), tracking(tracker, network, follow, LAYERS):
            outputs = tensors_of(network(example))
    except FAILURES as error:
        raise InvalidSetting(
            f"{type(network).__name__} cannot be traced for pruning ({reason(error)}); its operations must be torch's own"
        ) from error
    for output in outputs:
        tracker.labels.fix(tracker.of(output))
    return tracker


def _units(tracker: Tracker) -> Iterator[Unit]:
    """What can be cut by itself: the channels that it owns of each port, ascending."""
    found: dict[int, dict[Port, list[int]]] = defaultdict(lambda: defaultdict(list))
    ports = {**tracker.ports, **dict(_bare_ports(tracker))}
    for port, labels in ports.items():
        for index, label in enumerate(tracker.labels.roots(labels).tolist()):
            found[label][port].append(index)
    for label, unit in found.items():
        if label not in (FREE, FIXED):
            yield {port: tuple(indices) for port, indices in unit.items()}


def _bare_ports(tracker: Tracker) -> Iterator[tuple[Port, Tensor]]:
    """The channels of bare tensors, where they run along one dimension; others stay."""
    for name, labels in tracker.bare.items():
        dims = [dim for dim in range(labels.dim()) if tracker.labels.varies(labels, dim)]
        if len(dims) == 1:
            channels = labels
            for dim in range(labels.dim()):
                channels = channels if dim in dims else channels.narrow(dim, 0, 1)
            yield Port(name, OUT, dims[0]), channels.reshape(-1)
        else:
            tracker.labels.fix(labels)


def _place(order: Order, port: Port) -> tuple[int, str, bool]:
    return order.of(port.layer), port.layer, port.side == IN


def _first(unit: Unit, place: Callable[[Port], tuple[int, str, bool]]) -> tuple[tuple[int, str, bool], tuple[int, ...]]:
    return min((place(port), owned) for port, owned in unit.items())


def _is_member(tracker: Tracker, port: Port) -> bool:
    """The inputs of a convolution of several groups are cut with its outputs, but where it keeps its groups."""
    return port.side == OUT or port.layer in tracker.inner or getattr(tracker.layers[port.layer], "groups", 1) == 1


def _member(tracker: Tracker, port: Port, alike: list[Unit]) -> Member:
    units = tuple(unit[port] for unit in alike)
    if port.layer not in tracker.layers:
        return Member(port.layer, port.side, units, None if port.dim == last_dim(tracker.bare[port.layer]) else port.dim)
    if port.layer not in tracker.inner:
        return Member(port.layer, port.side, units)
    if port.side == IN:
        layer = tracker.layers[port.layer]
        assert isinstance(layer, _ConvNd)
        size = layer.in_channels // layer.groups
        units = tuple(tuple(sorted({index % size for index in unit})) for unit in units)
    return Member(port.layer, port.side, units, inner=True)


def _unused(name: str, taken: Collection[str]) -> str:
    """`name`, or with a number where one layer leads several groups."""
    return next(new for n in range(len(taken) + 1) if (new := f"{name}:{n}" if n else name) not in taken)
