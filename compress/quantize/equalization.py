"""Cross-layer equalization: channels of neighbouring layers are scaled so that their weights have like ranges, exactly.

Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction".
"""

from __future__ import annotations

import copy

import torch
from torch import fx

from compress.quantize.graph import WEIGHTED, Network, Node, described

aten = torch.ops.aten
ROUNDS = 10
_LEAST = 1e-8


def equalized(network: Network) -> Network:
    """A copy of `network` that computes the same with other weights; pairs with another activation than ReLU stay."""
    module = copy.deepcopy(network.module)
    found = described(module)
    nodes = {node.name: node for node in module.graph.nodes}
    pairs = [pair for layer in found.layers if (pair := _pair(nodes[layer.node], module)) is not None]
    for _ in range(ROUNDS):
        for first, second in pairs:
            _equalize(module, first, second)
    return found


def _pair(first: Node, module: fx.GraphModule) -> tuple[Node, Node] | None:
    """A layer and the only one that reads it, whose input channels are its output channels one by one.

    Neither shares its weights: scaled for one reader they would be wrong for the other.
    """
    node = first
    for _ in range(2):
        users = list(node.users)
        if len(users) != 1:
            return None
        node = users[0]
        if node.target is not aten.relu.default:
            break
    if node.target not in WEIGHTED or (node.target is aten.linear.default) != (first.target is aten.linear.default):
        return None
    if not all(_is_own(x) for x in (*first.args[1:3], node.args[1])):
        return None
    one, two = (module.get_parameter(str(x.args[1].target)) for x in (first, node))
    return (first, node) if two.shape[1] == len(one) or _is_depthwise(node, len(one), len(two)) else None


def _is_own(parameter: Node | None) -> bool:
    """Whether a layer's parameter, if there is one, is read by that layer alone."""
    return parameter is None or (parameter.op == "get_attr" and len(parameter.users) == 1)


def _is_depthwise(node: Node, before: int, after: int) -> bool:
    return len(node.args) > 6 and node.args[6] == before == after


def _equalize(module: fx.GraphModule, first: Node, second: Node) -> None:
    """Divide output channels of the first layer by s, and multiply what the second one reads by s."""
    one, two = (module.get_parameter(str(node.args[1].target)) for node in (first, second))
    depthwise = two.shape[1] == 1 and len(one) > 1
    with torch.no_grad():
        reads = two.flatten(1) if depthwise else two.transpose(0, 1).flatten(1)
        ranges = one.flatten(1).abs().amax(1), reads.abs().amax(1)
        scale = torch.where(
            (ranges[0] > _LEAST) & (ranges[1] > _LEAST), (ranges[0] / ranges[1].clamp_min(_LEAST)).sqrt(), torch.ones(len(one))
        )
        one.div_(scale.reshape(-1, *(1 for _ in one.shape[1:])))
        if len(first.args) > 2 and first.args[2] is not None:
            module.get_parameter(str(first.args[2].target)).div_(scale)
        shape = (-1, *(1 for _ in two.shape[1:])) if depthwise else (1, -1, *(1 for _ in two.shape[2:]))
        two.mul_(scale.reshape(shape))
