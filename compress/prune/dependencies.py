"""Which channels of a network can be cut together, and the network without them.

torch-pruning finds what hangs together, and its pruners shrink most layers (DepGraph, Fang et al. 2023). Where its maps of
channels guess, every group is proven by cutting it (compress.prune.proof), so that no cut breaks a network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning.dependency.node import Node
from torch_pruning.ops import OPTYPE, module2type
from torch_pruning.pruner.function import PrunerBox

from compress.prune.attention import attentions, head_group, narrow, prepare
from compress.prune.channels import Blocks, IndexMap, moves_into, moves_out_of
from compress.prune.coupling import Couplings, Port, Unit, units
from compress.prune.execution import FAILURES, Order, reason
from compress.prune.groups import IN, OUT, Cut, Group, Member, gone
from compress.prune.proof import proven
from compress.prune.shrink import shrink_grouped, shrink_norm, shrunk
from nas.cost.evaluation_mode import evaluation_mode
from nas.errors import InvalidSetting

WEIGHTED = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR)
NORMS = (OPTYPE.BN, OPTYPE.LN, OPTYPE.GN, OPTYPE.IN)
LAYERS = (*WEIGHTED, *NORMS, OPTYPE.PRELU, OPTYPE.PARAMETER)
# what cannot be cut, or what channels must not reach
FIXED = (OPTYPE.OUTPUT, OPTYPE.MHA, OPTYPE.LSTM, OPTYPE.EMBED)
NAMED = 5  # groups in one message


def analyse(module: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """All groups of `module` that can be cut, by the first layer that writes them, in order of execution.

    `example` (N, C, H, W) is run in evaluation mode; `module` is left as it is. Layers that evaluation mode does not run are
    in no group. A convolution of several groups is one member, on its output side: its units are whole groups, which take
    their inputs with them. Heads are units of the layers of their attention, as `prepare` names them. Weights do not matter.
    Raises InvalidSetting if the module cannot be run or traced.
    """
    network = prepare(module).eval().requires_grad_()
    network.zero_grad(set_to_none=True)
    order = Order(network, example)
    heads = [group for name, part in attentions(network) if (group := head_group(name, part))]
    claimed = {member.layer for group in heads for member in group.members if member.side == OUT}
    several = [group for group in heads if group.width > 1]
    groups = [*several, *_Traced(network, example, order).groups(claimed)]
    # run with gradients, some networks keep tensors that cannot be copied: the proof takes a new copy
    return proven(prepare(module).eval(), example, sorted(groups, key=lambda group: order.of(group.name)), remove)


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
    for (layer, side), indices in gone(groups, cuts).items():
        _shrink(network, layer, side, indices)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trainable[name])
    return network


# -- tracing


class _Traced:
    """torch-pruning's graph of a network, read as ports and edges."""

    def __init__(self, network: nn.Module, example: Tensor, order: Order) -> None:
        self.order = order
        self.names = {part: name for name, part in (*network.named_modules(), *network.named_parameters())}
        self.graph = _trace(network, example)
        self.nodes = self.graph.nodes
        self.numbers = {node: number for number, node in enumerate(self.nodes)}

    def groups(self, claimed: Collection[str]) -> list[Group]:
        """All groups but those led by layers that others `claimed`."""
        roots = [Port(number, OUT) for number, node in enumerate(self.nodes) if node.type in WEIGHTED]
        roots = sorted((port for port in roots if self.name(port) not in claimed), key=self.place)
        writers = {self.name(root) for root in roots}
        found: dict[tuple[tuple[Port, int], ...], list[Unit]] = defaultdict(list)
        for unit in units(self.couplings(), roots):
            found[tuple(sorted((port, len(owned)) for port, owned in unit.items()))].append(unit)
        groups: dict[str, Group] = {}
        for alike in found.values():
            members = [self.member(port, alike) for port in sorted(alike[0], key=self.place) if self.is_member(port)]
            leading = next((m.layer for m in members if m.side == OUT and m.layer in writers), None)
            if leading is not None and len(alike) > 1 and any(m.side == IN for m in members):
                name = _unused(leading, groups)
                groups[name] = Group(name, len(alike), tuple(members))
        return list(groups.values())

    def couplings(self) -> Couplings:
        edges: dict[Port, list[tuple[Port, list[IndexMap]]]] = defaultdict(list)
        widths: dict[Port, int] = {}
        fixed: set[Port] = set()
        for number, node in enumerate(self.nodes):
            reader = Port(number, IN if node.type in (OPTYPE.CONV, OPTYPE.LINEAR) else OUT)
            for source, there, back in _edges(node):
                writer = Port(self.numbers[source], OUT)
                edges[writer].append((reader, there))
                edges[reader].append((writer, back))
            if node.type in LAYERS:
                sides = _widths(node, self.graph)
                widths |= {Port(number, side): width for side, width in sides.items()}
                for side, other, blocks in _blocks(node):
                    edges[Port(number, side)].append((Port(number, other), [blocks]))
            if not node.outputs or _is_fixed(node):
                fixed.add(Port(number, OUT))
        return Couplings(edges, widths, frozenset(fixed))

    def name(self, port: Port) -> str:
        return self.names[self.nodes[port.node].module]

    def place(self, port: Port) -> tuple[int, str, bool]:
        name = self.name(port)
        return self.order.of(name), name, port.side == IN

    def is_member(self, port: Port) -> bool:
        """The inputs of a convolution of several groups are cut with its outputs."""
        return port.side == OUT or getattr(self.nodes[port.node].module, "groups", 1) == 1

    def member(self, port: Port, alike: list[Unit]) -> Member:
        ordered = sorted(alike, key=lambda unit: min((self.place(p), owned) for p, owned in unit.items()))
        return Member(self.name(port), port.side, tuple(unit[port] for unit in ordered))


def _trace(network: nn.Module, example: Tensor) -> _Graph:
    """Raises InvalidSetting with the cause."""
    graph = _Graph()
    try:
        with torch.enable_grad(), evaluation_mode(network):
            # a tuple: torch-pruning takes a bare tensor apart by its first dimension
            graph.build_dependency(network, (example,), verbose=False)
        if any(node.grad_fn is None for node in graph.nodes):
            raise ValueError("autograd did not record its output")
    except (*FAILURES, RecursionError) as error:
        raise InvalidSetting(
            f"{type(network).__name__} cannot be traced for pruning ({reason(error)}); its output must depend on its "
            "parameters through operations that autograd records"
        ) from error
    return graph


class _Graph(tp.DependencyGraph):
    """The operations of a network and what they read.

    Without torch-pruning's own maps of channels: they guess shapes that autograd knows, fail on some reshapes, and take
    forever on networks such as Swin.
    """

    def _build_dependency(self, module2node: dict[object, Node]) -> None:
        self.nodes = list(module2node.values())
        self.module2node: dict[object, Node] = {}  # nothing is left to map


def _edges(node: Node) -> Iterator[tuple[Node, list[IndexMap], list[IndexMap]]]:
    """What a node reads, with the maps of channels from there to the node, and back."""
    slots = list(node.grad_fn.next_functions)
    for source in node.inputs:
        slot = next((k for k, (operation, _) in enumerate(slots) if operation is source.grad_fn), None)
        there: list[IndexMap] = []
        back: list[IndexMap] = []
        if slot is not None:
            steps = []
            if source.type not in LAYERS:
                steps.append(moves_out_of(source.grad_fn, slots[slot][1]))
            if node.type not in LAYERS:
                steps.append(moves_into(node.grad_fn, slot))
            slots[slot] = (None, 0)
            there = [step[0] for step in steps if step]
            back = [step[1] for step in reversed(steps) if step]
        yield source, there, back


def _widths(node: Node, graph: tp.DependencyGraph) -> dict[str, int]:
    outs, ins = graph.get_out_channels(node), graph.get_in_channels(node)
    sides = {OUT: outs, IN: ins} if node.type in (OPTYPE.CONV, OPTYPE.LINEAR) else {OUT: outs}
    return {side: width for side, width in sides.items() if width is not None}


def _blocks(node: Node) -> Iterable[tuple[str, str, Blocks]]:
    """What ties channels inside a layer: convolutions and norms of several groups lose whole groups."""
    layer = node.module
    if node.type == OPTYPE.CONV and layer.groups > 1:
        read, written = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        yield IN, OUT, Blocks(read, written)
        yield OUT, IN, Blocks(written, read)
    elif node.type == OPTYPE.GN and layer.num_groups > 1:
        size = layer.num_channels // layer.num_groups
        yield OUT, OUT, Blocks(size, size)


def _is_fixed(node: Node) -> bool:
    """Tell whether the outputs of a node must stay."""
    layer = node.module
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        reads_input = not node.inputs
        return reads_input or layer.transposed or (node.type == OPTYPE.DEPTHWISE_CONV and layer.in_channels != layer.groups)
    return node.type in FIXED or (node.type == OPTYPE.LN and len(layer.normalized_shape) > 1)


def _unused(name: str, taken: Collection[str]) -> str:
    """`name`, or with a number where one layer leads several groups."""
    return next(new for n in range(len(taken) + 1) if (new := f"{name}:{n}" if n else name) not in taken)


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


def _shrink(network: nn.Module, name: str, side: str, indices: list[int]) -> None:
    """Take channels from one layer of `network`, in place."""
    owner, _, leaf = name.rpartition(".")
    parent = network.get_submodule(owner)
    layer = getattr(parent, leaf)
    if side == OUT and isinstance(layer, _ConvNd) and parent.__dict__.get("hidden_dim") == layer.out_channels:
        parent.__dict__["hidden_dim"] -= len(indices)  # torchvision's vision transformers reshape by it
    if isinstance(layer, nn.Parameter):
        setattr(parent, leaf, shrunk(layer, indices))
    elif isinstance(layer, _ConvNd) and layer.groups > 1:
        shrink_grouped(layer, indices)
    elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
        shrink_norm(layer, indices)
    else:
        pruner = PrunerBox[module2type(layer)]
        (pruner.prune_out_channels if side == OUT else pruner.prune_in_channels)(layer, indices)
