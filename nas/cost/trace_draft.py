"""A plan in the making: what the handlers of nas/cost/trace_handlers.py read of a torch.fx graph, and add layers to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch.nn as nn
from torch import Tensor, fx

from nas.plan import Layer, Size

Shape = tuple[int, ...]


@dataclass
class Draft:
    """A plan in the making: its layers by name, and for each node the layer whose output it holds or views.

    `stored` are the names of parameters and buffers that the network's file has.
    """

    graph: fx.GraphModule
    shapes: Mapping[fx.Node, Shape]
    stored: Collection[str] = ()
    layers: dict[str, Layer] = field(default_factory=dict)
    source: dict[fx.Node, str] = field(default_factory=dict)
    claimed: set[Tensor] = field(default_factory=set)

    def module(self, node: fx.Node) -> nn.Module:
        """The module that `node` calls."""
        return self.graph.get_submodule(str(node.target))

    def operation(self, node: fx.Node) -> str:
        """The name of the class, function or method that `node` calls."""
        if node.op == "call_module":
            return type(self.module(node)).__name__
        return node.target if isinstance(node.target, str) else node.target.__name__

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose tensors `node` reads, in order."""
        return [n for n in node.all_input_nodes if n in self.source]

    def claim(self, parameters: Sequence[Tensor]) -> bool:
        """Take parameters for a layer, once: a layer that shares some with another cannot be counted by itself."""
        new = not any(p in self.claimed for p in parameters)
        self.claimed.update(parameters)
        return new

    def emit(self, node: fx.Node, layer: Layer) -> None:
        """Append the layer whose output `node` holds; a module without parameters may run again, under the node's name."""
        layer = replace(layer, name=node.name) if layer.name in self.layers else layer
        self.layers[layer.name] = layer
        self.source[node] = layer.name

    def host(self, node: fx.Node) -> Layer | None:
        """The layer that `node` can be fused into: the one that it reads, if nothing else reads that."""
        name = self.source[self.inputs(node)[0]]
        holders = [n for n, source in self.source.items() if source == name]
        alone = all(sum(user in self.shapes for user in n.users) == 1 for n in holders)
        return self.layers.get(name) if alone else None

    def fuse(self, node: fx.Node, layer: Layer) -> None:
        """Put `layer` in the place of its host; `node` now holds its output."""
        self.layers[layer.name] = layer
        self.source[node] = layer.name


Handler = Callable[[Draft, fx.Node], None]


def as_map(shape: Shape) -> tuple[int, Size]:
    """Channels and size of an image (1, C, H, W); any other tensor has its channels last."""
    return (shape[1], (shape[0] * shape[2], shape[3])) if len(shape) == 4 else features_last(shape)


def features_last(shape: Shape) -> tuple[int, Size]:
    """Channels and size of a tensor (..., C): the other axes are one."""
    return (shape[-1], (prod(shape[:-1]), 1)) if shape else (1, (1, 1))


def sequence(shape: Shape) -> tuple[int, Size]:
    """Channels and size of a sequence (1, C, L); of any other tensor as of an image."""
    return (shape[1], (shape[0] * shape[2], 1)) if len(shape) == 3 else as_map(shape)


def layer_of(
    draft: Draft,
    node: fx.Node,
    op: str,
    read: Callable[[Shape], tuple[int, Size]] = as_map,
    before: Sequence[fx.Node] | None = None,
) -> Layer:
    """The layer that the shapes tell of; `read` gives channels and size of a shape, `before` is what it reads, if not all."""
    before = draft.inputs(node) if before is None else before
    out_channels, out_size = read(draft.shapes[node])
    in_channels, in_size = read(draft.shapes[before[0]]) if before else (out_channels, out_size)
    name = str(node.target) if node.op in ("call_module", "get_attr") else node.name
    return Layer(name, op, tuple(draft.source[n] for n in before), in_channels, out_channels, in_size, out_size)


def unknown(draft: Draft, node: fx.Node) -> None:
    """Anything without a handler: its own name is the operation."""
    draft.emit(node, layer_of(draft, node, draft.operation(node)))


def shared(draft: Draft, node: fx.Node) -> None:
    """A module that runs again, or has a parameter of another one: nothing that can be counted layer by layer."""
    draft.emit(node, replace(layer_of(draft, node, f"shared {draft.operation(node)}"), name=node.name))


def parameter(draft: Draft, node: fx.Node) -> None:
    """A parameter that the forward reads by itself, such as a position embedding, a buffer, or a tensor that it makes."""
    name = str(node.target)
    if name in draft.layers:
        draft.source[node] = name
        return
    *path, attribute = name.split(".")
    value = getattr(draft.graph.get_submodule(".".join(path)), attribute)
    if isinstance(value, nn.Parameter):
        return draft.emit(node, layer_of(draft, node, "parameter" if draft.claim([value]) else "shared parameter"))
    layer = layer_of(draft, node, "buffer" if name in draft.stored else "constant")
    draft.emit(node, replace(layer, act_bits=8 * value.itemsize))


def own(draft: Draft, nodes: Sequence[fx.Node], *ops: str) -> bool:
    """Whether `nodes` are of these kinds and nothing else reads them: then they are part of a layer, and none themselves."""
    names = [draft.source[n] for n in nodes]
    alone = all(n.op == "get_attr" and len(n.users) == 1 for n in nodes)
    if not alone or [draft.layers[name].op for name in names if name in draft.layers] != [*ops]:
        return False
    for name in names:
        del draft.layers[name]
    return True


def arguments(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """The arguments of a function by name."""
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def pair(value: Any) -> Size:  # noqa: ANN401
    """Height and width of a window that is given as one number or as two."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def along(value: Any) -> Size:  # noqa: ANN401
    """The same of a window that runs along a sequence, which is as wide as one."""
    return (value if isinstance(value, int) else value[0], 1)
