"""Operations as integer kernels know them: zeros around a convolution are its padding, and a mean of pixels is a pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
Node = Any  # fx.Node, whose arguments have no type that a checker could follow
_DROPPED = {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default}
_PIXELS = [2, 3]
_DEFAULTS: tuple[Any, ...] = (None, [1, 1], [0, 0])


def rewrite(graph: fx.GraphModule) -> None:
    """Change a traced graph in place: it computes the same, without dropout, and writes into nothing that others read."""
    _without_dropout(graph)
    _functional(graph)
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in _RULES:
            _RULES[node.target](graph, node)


def is_zero_padding(node: Node) -> bool:
    """Whether a node puts zeros around the pixels of its images: integers have a zero, so that it moves values only."""
    if node.target is not aten.constant_pad_nd.default or (len(node.args) > 2 and node.args[2] != 0):
        return False
    return len(node.args[1]) <= 4 and all(isinstance(side, int) for side in node.args[1])


def _without_dropout(graph: fx.GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if node.target in _DROPPED:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _functional(graph: fx.GraphModule) -> None:
    """Put operations that return a new tensor in the place of those that write into one that nothing else has."""
    order = {node: place for place, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        name, _, overload = str(node.target).removeprefix("aten.").partition(".")
        if node.op != "call_function" or not name.endswith("_") or not hasattr(aten, name[:-1]):
            continue
        written = node.args[0]
        alone = isinstance(written, fx.Node) and all(order[user] <= order[node] for user in written.users)
        if alone and not _is_view(written):
            node.target = getattr(getattr(aten, name[:-1]), overload)


def _is_view(node: Node) -> bool:
    """Whether the values of `node` may belong to another node."""
    schema = getattr(node.target, "_schema", None)
    return node.op != "call_function" or schema is None or any(value.alias_info is not None for value in schema.returns)


def _pad(graph: fx.GraphModule, node: Node) -> None:
    """As the padding of the convolutions that read it, where both sides of an axis have as many zeros."""
    mode = node.args[2] if len(node.args) > 2 else node.kwargs.get("mode", "constant")
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    if mode != "constant":
        return
    node.target, node.args, node.kwargs = aten.constant_pad_nd.default, (*node.args[:2], value or 0), {}
    _constant_pad(graph, node)


def _constant_pad(graph: fx.GraphModule, node: Node) -> None:
    if not is_zero_padding(node):
        return
    left, right, top, bottom = ([*node.args[1], 0, 0, 0, 0])[:4]
    readers = list(node.users)
    if left != right or top != bottom or min(left, top) < 0 or not all(_is_conv(user, node) for user in readers):
        return
    for reader in readers:
        given = list(reader.args[2:5])
        bias, stride, (rows, columns) = given + list(_DEFAULTS[len(given) :])
        reader.args = (node.args[0], reader.args[1], bias, stride, [rows + top, columns + left], *reader.args[5:])
    graph.graph.erase_node(node)


def _is_conv(node: Node, read: Node) -> bool:
    return node.target is aten.conv2d.default and node.args[0] is read and read not in node.args[1:]


def _adaptive_pool(graph: fx.GraphModule, node: Node) -> None:
    """To a single pixel it is a mean; as a pooling it is exported with the strides of its input."""
    if list(node.args[1]) == [1, 1] and _dimensions(node.args[0]) == 4:
        node.target, node.args = aten.mean.dim, (node.args[0], list(_PIXELS), True)


def _mean(graph: fx.GraphModule, node: Node) -> None:
    """With the axes of the pixels kept, and dropped afterwards."""
    axes, keep = node.args[1], len(node.args) > 2 and node.args[2]
    if keep or not axes or _dimensions(node.args[0]) != 4 or sorted(axis % 4 for axis in axes) != _PIXELS or node.kwargs:
        return
    node.args = (node.args[0], list(_PIXELS), True)
    value = node.meta["val"]
    with graph.graph.inserting_after(node):
        dropped = graph.graph.call_function(aten.squeeze.dims, (node, list(_PIXELS)))
    dropped.meta = {**node.meta, "val": value}
    node.meta["val"] = value[..., None, None]
    node.replace_all_uses_with(dropped, delete_user_cb=lambda user: user is not dropped)


def _dimensions(node: Node) -> int:
    value = node.meta.get("val")
    return value.ndim if isinstance(value, Tensor) else 0


_RULES = {
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _constant_pad,
    aten.adaptive_avg_pool2d.default: _adaptive_pool,
    aten.mean.dim: _mean,
}
