"""A network whose weights and activations are rounded as integer kernels do, computed in floating point: fake quantization."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from compress.quantize.formats import format_of
from compress.quantize.graph import Network, Node
from compress.quantize.quantizer import Quantizer, activation_quantizer, weight_quantizer
from compress.quantize.scheme import Scheme

Ranges = Mapping[str, tuple[float, float]]
# of the largest weight: the fewer bits, the more of it is clipped
SHARES = torch.linspace(1.0, 0.3, 36).tolist()
WEIGHTS, POINTS = "weight_quantizers", "point_quantizers"


def simulated(network: Network, scheme: Scheme, ranges: Ranges | None = None) -> fx.GraphModule:
    """A copy of `network` that rounds weights and points by `scheme`; `ranges` are (lowest, highest) values of the points.

    Without ranges scales are 1, to be loaded. It trains like any module.
    """
    module = copy.deepcopy(network.module)
    nodes = {node.name: node for node in module.graph.nodes}
    module.add_module(WEIGHTS, nn.Module())
    module.add_module(POINTS, nn.Module())
    for layer in network.layers:
        weight = nodes[layer.node].args[1]
        tensor = module.get_parameter(weight.target)
        quantizer = weight_quantizer(format_of(scheme.weights[layer.name]), len(tensor))
        if quantizer is not None:
            fit_weight(quantizer, tensor)
            _insert(module, f"{WEIGHTS}.{layer.node}", quantizer, weight, [nodes[layer.node]])
    for point in network.points:
        quantizer = activation_quantizer(format_of(scheme.of_point(network, point)))
        if quantizer is not None:
            _insert(module, f"{POINTS}.{point}", quantizer, nodes[point], list(nodes[point].users))
    if ranges:
        set_ranges(module, network, ranges)
    module.recompile()
    return module


def set_ranges(module: fx.GraphModule, network: Network, ranges: Ranges) -> None:
    """Spread the integers of each point of a simulated module over its range."""
    for point in network.points:
        quantizer = point_quantizer_of(module, point)
        if quantizer is not None:
            low, high = ranges[point]
            quantizer.set_range(torch.tensor([low]), torch.tensor([high]), symmetric=False)


def weight_quantizer_of(module: fx.GraphModule, node: str) -> Quantizer | None:
    """The quantizer of a layer's weights, by the name of its node; None where they are not rounded."""
    return getattr(module.get_submodule(WEIGHTS), node, None)


def point_quantizer_of(module: fx.GraphModule, point: str) -> Quantizer | None:
    """The quantizer of a point; None where it is not rounded."""
    return getattr(module.get_submodule(POINTS), point, None)


def weight_of(module: fx.GraphModule, network: Network, node: str) -> nn.Parameter:
    """The weights of a layer, not rounded, in a simulated module or in the network itself."""
    place = next(n for n in network.module.graph.nodes if n.name == node)
    return module.get_parameter(str(place.args[1].target))


def fit_weight(quantizer: Quantizer, weight: Tensor) -> None:
    """Scale of each channel: of the ranges up to its largest weight, the one that rounds with the least squared error."""
    flat = weight.detach().flatten(1).float()
    largest = flat.abs().amax(1)
    best, chosen = torch.full_like(largest, torch.inf), largest.clone()
    for share in SHARES:
        limit = largest * share
        quantizer.set_range(-limit, limit, symmetric=True)
        with torch.no_grad():
            error = (quantizer(weight.detach()).flatten(1) - flat).square().sum(1)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, limit, chosen)
    quantizer.set_range(-chosen, chosen, symmetric=True)


def _insert(module: fx.GraphModule, place: str, quantizer: Quantizer, node: Node, readers: list[Node]) -> None:
    """Let `readers` read `node` through `quantizer`."""
    module.add_submodule(place, quantizer)
    with module.graph.inserting_after(node):
        rounded = module.graph.call_module(place, (node,))
    for reader in readers:
        reader.replace_input_with(node, rounded)
