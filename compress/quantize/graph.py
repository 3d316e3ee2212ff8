"""The graph that is quantized: a network as ATen operations, batch norms folded, with the places where values are rounded."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.agreement import check_same, noise_of
from compress.export import FIXED_SIZE, TRACED_IMAGES, traced
from compress.quantize.constants import fold_constants, tensor_of
from compress.quantize.rewrites import is_zero_padding, rewrite
from nas.errors import InvalidSetting

aten = torch.ops.aten
Node = Any  # fx.Node, whose arguments have no type that a checker could follow
WEIGHTED = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.linear.default,
}
# what an int8 kernel does in one go with the layer before it
FUSED = {aten.relu.default, aten.hardtanh.default, aten.relu6.default, aten.clamp.default}
# what int8 kernels read
READERS = WEIGHTED | {
    aten.add.Tensor,
    aten.matmul.default,
    aten.bmm.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.mean.dim,
    aten.cat.default,
}
# these move values, and leave them as they are: their output is rounded as their input was
MOVES = {
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.slice.Tensor,
    aten.select.int,
    aten.unflatten.int,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.contiguous.default,
}


@dataclass(frozen=True)
class Layer:
    """A layer with weights: its name in the network, the operation, the points where it reads and puts out, what it costs.

    `params` counts its weights without the bias, `macs` its multiply-adds for one image.
    """

    name: str
    node: str
    source: str
    point: str
    params: int
    channels: int
    macs: int


@dataclass(frozen=True)
class Network:
    """A folded graph in evaluation mode, its layers in order of execution, and the `points` where activations are rounded.

    A point is the name of a node; each layer reads one (`source`), through operations that only move values.
    """

    module: fx.GraphModule
    layers: tuple[Layer, ...]
    points: tuple[str, ...]


def network_of(module: nn.Module, shape: tuple[int, int, int], images: Tensor | None = None) -> Network:
    """Trace `module` (evaluation mode, CPU) for images of `shape`, fold batch norms, and find layers and points.

    The graph is compared with the module on `images` (N, C, H, W), on noise where there are none. Raises InvalidSetting
    naming what cannot be traced, and for a network without layers; VerificationFailed for a graph that answers otherwise.
    """
    graph = _traced(module, shape)
    rewrite(graph)
    fold_constants(graph, WEIGHTED)
    _fold_norms(graph)
    _rename(graph)
    graph.graph.eliminate_dead_code()
    found = fx.GraphModule(graph, graph.graph).eval()  # which takes along what the graph reads, and nothing else
    found.delete_all_unused_submodules()
    found.recompile()
    what = f"the graph of {type(module).__name__}, traced and with its batch norms folded,"
    check_same(module, found, noise_of(shape) if images is None else images, what)
    return described(found)


def described(module: fx.GraphModule) -> Network:
    """Find the layers and the points of a folded graph."""
    points = tuple(node.name for node in module.graph.nodes if _is_point(node))
    layers = tuple(
        _layer(node, weight)
        for node in module.graph.nodes
        if node.target in WEIGHTED and isinstance(weight := tensor_of(module, node.args[1]), nn.Parameter)
    )
    if not layers:
        raise InvalidSetting("the network has no convolution and no linear layer; there is nothing to quantize in it")
    return Network(module, _unique(layers), points)


def origin(node: Node) -> Node:
    """The node whose values `node` has, moved at most."""
    while moves(node):
        node = node.args[0]
    return node


def moves(node: Node) -> bool:
    """Whether a node leaves values as they are, and puts nothing but zeros beside them: integers hold both exactly."""
    return node.target in MOVES or is_zero_padding(node)


def _layer(node: Node, weight: Tensor) -> Layer:
    outputs = prod(int(side) for side in node.meta["val"].shape) // TRACED_IMAGES
    macs = weight.numel() // len(weight) * outputs
    source, end = origin(node.args[0]).name, _end(node).name
    return Layer(_path(node) or node.name, node.name, source, end, weight.numel(), len(weight), macs)


# -- points


def _is_point(node: Node) -> bool:
    """Whether the values of `node` are rounded: what an int8 kernel reads or puts out, but for the network's output."""
    if node.op == "placeholder":
        return _is_read(node)
    if node.op != "call_function" or moves(node) or not _is_tensor(node) or _is_fused(node):
        return False
    if _reaches_output(node):
        return False
    start = _start(node)
    return start.target in WEIGHTED or start.target in READERS or _is_read(node)


def _is_read(node: Node) -> bool:
    return any(user.target in READERS or (moves(user) and _is_read(user)) for user in node.users)


def _reaches_output(node: Node) -> bool:
    return all(user.op == "output" or (moves(user) and _reaches_output(user)) for user in node.users)


def _is_fused(node: Node) -> bool:
    """Whether the only reader is an activation that the same kernel computes."""
    users = list(node.users)
    return len(users) == 1 and users[0].target in FUSED and node.target in READERS


def _end(node: Node) -> Node:
    """The node that has the values of a layer when it is done: its activation."""
    return next(iter(node.users)) if _is_fused(node) else node


def _start(node: Node) -> Node:
    before = node.args[0] if node.args else None
    return before if node.target in FUSED and isinstance(before, fx.Node) and _is_fused(before) else node


def _is_tensor(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


# -- tracing


def _traced(module: nn.Module, shape: tuple[int, int, int]) -> fx.GraphModule:
    assert not module.training, "a network is quantized as it is evaluated"
    try:
        program = traced(module, torch.zeros(1, *shape))
        # a copy, because the program has the very parameters of the module, which others train, freeze and move
        return copy.deepcopy(program.module(check_guards=False)).requires_grad_(True)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        remedy = (
            "let it take any number of images"
            if FIXED_SIZE in reason
            else "keep control flow that depends on tensors out of it"
        )
        raise InvalidSetting(
            f"{type(module).__name__} cannot be traced by torch.export for images of {'x'.join(map(str, shape))} ({reason}); "
            f"mend its forward: {remedy}"
        ) from error


def _fold_norms(graph: fx.GraphModule) -> None:
    """Fold each batch norm into the convolution or linear layer before it, where nothing else reads that."""
    readers: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            readers[str(node.target)] = readers.get(str(node.target), 0) + len(node.users)
    for norm in [n for n in graph.graph.nodes if n.target is aten.batch_norm.default]:
        layer = norm.args[0]
        if _is_foldable(norm) and len(layer.users) == 1 and readers.get(str(layer.args[1].target)) == 1:
            _fold(graph, layer, norm)


def _is_foldable(norm: Node) -> bool:
    """Whether a batch norm has statistics, and the channels of the layer that it reads, and all of both is constant."""
    layer, mean, of_batch = norm.args[0], norm.args[3], norm.args[5]
    channels_last = layer.target is aten.linear.default and layer.meta["val"].ndim > 2
    if mean is None or of_batch or channels_last or layer.target not in WEIGHTED:
        return False
    return all(given is None or given.op == "get_attr" for given in (*layer.args[1:3], *norm.args[1:5]))


def _fold(graph: fx.GraphModule, layer: Node, norm: Node) -> None:
    gain, shift, mean, variance = (tensor_of(graph, x) for x in norm.args[1:5])
    weight = tensor_of(graph, layer.args[1])
    assert weight is not None and mean is not None and variance is not None
    with torch.no_grad():
        factor = (torch.ones_like(mean) if gain is None else gain) * torch.rsqrt(variance + norm.args[7])
        bias = tensor_of(graph, layer.args[2]) if len(layer.args) > 2 else None
        moved = (-mean if bias is None else bias - mean) * factor + (0 if shift is None else shift)
        scaled = weight * factor.reshape(-1, *(1 for _ in weight.shape[1:]))
    path = str(layer.args[1].target)
    _set(graph, path, nn.Parameter(scaled.detach().clone()))
    place = f"{path}_folded_bias"
    _set(graph, place, nn.Parameter(moved.detach().clone()))
    with graph.graph.inserting_before(layer):
        node = graph.graph.get_attr(place)
    layer.args = (*layer.args[:2], node, *layer.args[3:])
    norm.replace_all_uses_with(layer)
    graph.graph.erase_node(norm)


def _set(graph: fx.GraphModule, path: str, parameter: nn.Parameter) -> None:
    parent, _, name = path.rpartition(".")
    setattr(graph.get_submodule(parent), name, parameter)


# -- names


def _path(node: Node) -> str:
    """The name of the module that a node belongs to."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _rename(graph: fx.GraphModule) -> None:
    """Name nodes after the modules that they belong to, so that files and reports say where a value comes from."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and _path(node):
            operation = str(node.target).removeprefix("aten.").partition(".")[0]
            path = re.sub(r"\W", "_", _path(node))
            node._rename(path if node.target in WEIGHTED or path.endswith(operation) else f"{path}_{operation}")


def _unique(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """A module that is called twice is two layers: the second is named after its node."""
    seen: set[str] = set()
    found = []
    for layer in layers:
        name = layer.node if layer.name in seen else layer.name
        seen.add(name)
        found.append(replace(layer, name=name))
    return tuple(found)
