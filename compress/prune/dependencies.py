"""Which channels of a network can be cut together, and the network without them.

Labels of channels follow the operations of one run (compress.prune.tracking). What the network does besides, such as numbers
that are written into its forward, is proven by cutting every group (compress.prune.proof), so that no cut breaks a network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.prune.attention import attentions, head_group, narrow, prepare
from compress.prune.execution import Order
from compress.prune.grouping import followed, groups_of
from compress.prune.groups import OUT, Cut, Group, Member, gone
from compress.prune.proof import proven
from compress.prune.shrink import shrink, shrunk
from compress.prune.tracking import Port
from nas.errors import InvalidSetting

NAMED = 5  # groups in one message


def analyse(module: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """All groups of `module` that can be cut, by the first layer that writes them, in order of execution.

    `example` (N, C, H, W) is run in evaluation mode; `module` is left as it is. Layers that evaluation mode does not run are
    in no group. A convolution of several groups is one member, on its output side: its units are whole groups, which take
    their inputs with them. Heads are units of the layers of their attention, as `prepare` names them. Weights do not matter.
    Raises InvalidSetting if the module cannot be run or traced.
    """
    network = prepare(module).eval()
    order = Order(network, example)
    found, stuck = _proven(network, example, order, ())
    if stuck:
        other, _ = _proven(network, example, order, stuck)
        found = max(found, other, key=_channels_of)
    return found


def cut(module: nn.Module, cuts: Sequence[Cut], example: Tensor) -> nn.Module:
    """A copy of `module`, prepared (see `prepare`), without the units of `cuts`; replays a step of a history.

    Raises InvalidSetting as `analyse` and `remove` do.
    """
    return remove(module, analyse(module, example), cuts)


def remove(module: nn.Module, groups: Sequence[Group], cuts: Sequence[Cut]) -> nn.Module:
    """The same where the groups of `module` are known.

    Raises InvalidSetting for a group or units that do not exist, or if too few units would be left.
    """
    network = prepare(module)
    trainable = {name: p.requires_grad for name, p in network.named_parameters()}
    for group, cut_units in _checked(groups, cuts):
        _narrow_heads(network, group, len(cut_units))
    dims = {member.layer: member.dim for group in groups for member in group.members}
    for (layer, side), indices in gone(groups, cuts).items():
        _shrink(network, layer, side, indices, dims)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trainable[name])
    return network


# -- groups


def holders(module: nn.Module, example: Tensor) -> str:
    """What keeps the channels of a network of which nothing can be cut, in words."""
    network = prepare(module).eval()
    order = Order(network, example)
    tracker = followed(network, example)
    reasons = list(tracker.held)
    if failed := [group.name for group in groups_of(tracker, order)]:
        some = ", ".join(failed[:NAMED])
        reasons.append(f"{some}: the number of channels is written into the forward, as in view(n, 64, -1), or an attribute")
    return "; ".join(reasons[:NAMED]) or "every channel reaches the input, the output or a fixed shape"


def _proven(
    network: nn.Module, example: Tensor, order: Order, inner: Collection[str]
) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """The groups that can be cut, and convolutions of several groups that are in none of them."""
    heads = [group for name, part in attentions(network) if (group := head_group(name, part))]
    claimed = {member.layer for group in heads for member in group.members if member.side == OUT}
    several = [group for group in heads if group.width > 1]
    tracker = followed(network, example, claimed, inner)
    groups = sorted([*several, *groups_of(tracker, order)], key=lambda group: order.of(_leader(group)))
    found = proven(network, example, groups, remove)
    if tied := _tied([group for group in groups if group not in found]):
        groups = sorted([*found, *tied], key=lambda group: order.of(_leader(group)))
        found = proven(network, example, groups, remove)
    cut_layers = {member.layer for group in found for member in group.members}
    grouped = (
        name for name, layer in tracker.layers.items() if isinstance(layer, _ConvNd) and 1 < layer.groups < layer.in_channels
    )
    return found, tuple(name for name in grouped if name not in cut_layers and Port(name, OUT) in tracker.ports)


def _tied(failed: Sequence[Group]) -> list[Group]:
    """Groups of the same width that cut one layer, as one group: parts of it that must stay as wide as each other."""
    alike: dict[tuple[str, int], list[Group]] = defaultdict(list)
    for group in failed:
        alike[_leader(group), group.width].append(group)
    return [_one_of(groups) for groups in alike.values() if len(groups) > 1]


def _one_of(groups: Sequence[Group]) -> Group:
    members: dict[tuple[str, str], Member] = {}
    for member in (member for group in groups for member in group.members):
        known = members.get((member.layer, member.side))
        units = member.units if known is None else tuple(map(_both, known.units, member.units))
        members[member.layer, member.side] = replace(member, units=units)
    return replace(groups[0], members=tuple(members.values()))


def _both(one: tuple[int, ...], two: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted({*one, *two}))


def _leader(group: Group) -> str:
    return group.name.partition(":")[0]


def _channels_of(groups: Sequence[Group]) -> int:
    """How many output channels groups can cut."""
    return sum(len(unit) for group in groups for member in group.members if member.side == OUT for unit in member.units)


# -- cutting


def _checked(groups: Sequence[Group], cuts: Sequence[Cut]) -> list[tuple[Group, list[int]]]:
    """The cut units of each group, sorted."""
    named = {group.name: group for group in groups}
    cut_units: dict[str, set[int]] = defaultdict(set)
    for step in cuts:
        if step.group not in named:
            some = ", ".join(list(named)[:NAMED]) or "none"
            raise InvalidSetting(f"there is no group {step.group!r} to cut; of {len(named)} groups the first are: {some}")
        cut_units[step.group].update(step.units)
    return [(named[name], _checked_units(named[name], units)) for name, units in cut_units.items()]


def _checked_units(group: Group, cut_units: set[int]) -> list[int]:
    wrong = sorted(u for u in cut_units if not 0 <= u < group.width)
    if wrong:
        raise InvalidSetting(f"group {group.name!r} has no units {wrong[:NAMED]}; its units are 0 to {group.width - 1}")
    kept = group.width - len(cut_units)
    if kept < 1 or kept % group.multiple_of:
        raise InvalidSetting(
            f"cutting {len(cut_units)} of the {group.width} units of group {group.name!r} would leave {kept}; "
            f"leave a multiple of {group.multiple_of}, and at least that"
        )
    return sorted(cut_units)


def _narrow_heads(network: nn.Module, group: Group, cut_heads: int) -> None:
    name = group.name.rpartition(".")[0]
    attention = dict(attentions(network)).get(name)
    if attention is not None and head_group(name, attention) == group:
        narrow(attention, group.width - cut_heads)


def _shrink(network: nn.Module, name: str, side: str, indices: list[int], dims: Mapping[str, int | None]) -> None:
    """Take channels from one layer or bare tensor of `network`, in place."""
    owner, _, leaf = name.rpartition(".")
    parent = network.get_submodule(owner)
    layer = getattr(parent, leaf)
    if side == OUT and isinstance(layer, _ConvNd) and parent.__dict__.get("hidden_dim") == layer.out_channels:
        parent.__dict__["hidden_dim"] -= len(indices)  # torchvision's vision transformers reshape by it
    if isinstance(layer, Tensor):
        setattr(parent, leaf, shrunk(layer, indices, dims.get(name)))
    else:
        shrink(layer, side, indices)
