"""Weights, biases and norms that a forward puts together or keeps in buffers, as plain parameters of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

aten = torch.ops.aten
Node = Any  # fx.Node, whose arguments have no type that a checker could follow
_PREFIX = {True: "_constant", False: "_statistic"}


def fold_constants(graph: fx.GraphModule, layers: set[Any]) -> None:
    """Compute, in place, what operations of `layers` read as weights or bias, and batch norms as their four vectors.

    What no image changes becomes a parameter, or a buffer where it is a statistic; what depends on the images stays as it is.
    """
    known: dict[Node, Tensor | None] = {}
    for node in list(graph.graph.nodes):
        if node.target in layers:
            _replace(graph, node, (1, 2), known)
        elif node.target is aten.batch_norm.default:
            _replace(graph, node, (1, 2), known)
            _replace(graph, node, (3, 4), known, trained=False)


def tensor_of(graph: fx.GraphModule, node: Node) -> Tensor | None:
    """The parameter or buffer that a node stands for."""
    if not (isinstance(node, fx.Node) and node.op == "get_attr"):
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _replace(
    graph: fx.GraphModule, node: Node, places: Sequence[int], known: dict[Node, Tensor | None], trained: bool = True
) -> None:
    for place in places:
        given = node.args[place] if len(node.args) > place else None
        if not isinstance(given, fx.Node) or isinstance(tensor_of(graph, given), nn.Parameter if trained else Tensor):
            continue
        value = _value(graph, given, known)
        if isinstance(value, Tensor) and value.is_floating_point():
            node.replace_input_with(given, _constant(graph, given, value, trained))


def _constant(graph: fx.GraphModule, given: Node, value: Tensor, trained: bool) -> Node:
    """A node of a tensor with the values of `given`, the same tensor for all that read it alike."""
    name, value = f"{_PREFIX[trained]}_{given.name}", value.detach().clone()
    if not hasattr(graph, name):
        graph.register_parameter(name, nn.Parameter(value)) if trained else graph.register_buffer(name, value)
    with graph.graph.inserting_after(given):
        return graph.graph.get_attr(name)


def _value(graph: fx.GraphModule, last: Node, known: dict[Node, Tensor | None]) -> Tensor | None:
    """What a node gives, whatever the images are; None where it depends on them."""
    for node in _before(last):
        if node in known:
            continue
        if node.op == "get_attr":
            known[node] = tensor_of(graph, node)
        elif node.op == "call_function" and all(known[given] is not None for given in node.all_input_nodes):
            known[node] = _run(node, known)
        else:
            known[node] = None
    return known[last]


def _run(node: Node, known: dict[Node, Tensor | None]) -> Any:  # noqa: ANN401 - operations give tensors, numbers, tuples of them
    args, kwargs = (map_arg(given, lambda n: known[n]) for given in (node.args, node.kwargs))
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _before(last: Node) -> list[Node]:
    """A node and all that it depends on, each after what it reads."""
    order: dict[Node, None] = {}
    stack = [(last, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order[node] = None
        elif node not in order:
            stack.append((node, True))
            stack += [(given, False) for given in node.all_input_nodes]
    return list(order)
