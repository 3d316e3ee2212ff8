"""A plan in the making: what the handlers of nas/cost/trace_handlers.py read of a torch.fx graph, and add layers to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod
from typing import Any

import torch.nn as nn
from torch import Tensor, fx

from nas.cost.operations import Work
from nas.plan import Layer, Size

Shape = tuple[int, ...]


@dataclass
class Draft:
    """A plan in the making: its layers by name, and for each node the layer whose output it holds or views.

    `root` is the network itself, of which `graph` has but what is read; `works` is what torch computes at each node; `stored`
    are the names of parameters and buffers that the network's file has, `claimed` those tensors that a layer has taken already.
    """

    root: nn.Module
    graph: fx.GraphModule
    shapes: Mapping[fx.Node, Shape]
    works: Mapping[fx.Node, Work] = field(default_factory=dict)
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

    def free(self, tensors: Collection[Tensor]) -> bool:
        """Whether no layer has taken any of these parameters and buffers."""
        return not any(t in self.claimed for t in tensors)

    def emit(self, node: fx.Node, layer: Layer) -> None:
        """Append the layer whose output `node` holds; what runs again is named `NAME:2`, `NAME:3` and so on."""
        if layer.name in self.layers:
            layer = replace(layer, name=next(n for n in map(f"{layer.name}:{{}}".format, count(2)) if n not in self.layers))
        self.layers[layer.name] = layer
        self.source[node] = layer.name

    def host(self, node: fx.Node) -> Layer | None:
        """The layer that `node` can be fused into: the one that it reads, if nothing else reads that."""
        name = self.source[self.inputs(node)[0]]
        holders = [n for n, source in self.source.items() if source == name]
        alone = all(sum(user in self.shapes for user in n.users) == 1 for n in holders)
        return self.layers.get(name) if alone else None

    def hold(self, name: str, tensor: Tensor) -> None:
        """Append a parameter or a stored buffer as a layer of its own."""
        self.claimed.add(tensor)
        channels, size = as_map(tuple(tensor.shape))
        op = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        self.layers[name] = Layer(name, op, (), channels, channels, size, size, act_bits=8 * tensor.itemsize)

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


def volume(shape: Shape) -> tuple[int, Size]:
    """Channels and size of a volume (1, C, D, H, W), whose slices lie one below the other; else as of a sequence."""
    return (shape[1], (shape[2] * shape[3], shape[4])) if len(shape) == 5 else sequence(shape)


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
    """Anything without a handler: its cost is what torch computes; if that is not known, its own name is the operation."""
    work = draft.works.get(node, Work(unknown=(draft.operation(node),)))
    if work.unknown:
        return draft.emit(node, layer_of(draft, node, draft.operation(node)))
    layer = layer_of(draft, node, "composite" if work.macs else "elementwise")
    draft.emit(node, replace(layer, inner_macs=work.macs, inner_outputs=work.outputs))


def parameter(draft: Draft, node: fx.Node) -> None:
    """A parameter that the forward reads by itself, such as a position embedding, a buffer, or a tensor that it makes."""
    name = str(node.target)
    if name in draft.layers:
        draft.source[node] = name
        return
    *path, attribute = name.split(".")
    value = getattr(draft.graph.get_submodule(".".join(path)), attribute)
    held = isinstance(value, nn.Parameter) or name in draft.stored
    if held and draft.free([value]):
        draft.hold(name, value)
        draft.source[node] = name
    else:  # a tensor that the network makes, or one that another layer has
        draft.emit(node, replace(layer_of(draft, node, "constant"), act_bits=8 * value.itemsize))


def own(draft: Draft, nodes: Sequence[fx.Node], *ops: str) -> bool:
    """Whether `nodes` are of these kinds and nothing else reads them: then they are part of a layer, and none themselves."""
    names = [draft.source[n] for n in nodes]
    held = [*draft.source.values()]
    alone = all(n.op == "get_attr" and len(n.users) == 1 and held.count(draft.source[n]) == 1 for n in nodes)
    if not alone or [draft.layers[name].op for name in names if name in draft.layers] != [*ops]:
        return False
    for name in names:
        del draft.layers[name]
    return True


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers of a module and its parts by name, each tensor once."""
    kept, stored = {**dict(module.named_parameters()), **dict(module.named_buffers())}, module.state_dict().keys()
    return {name: tensor for name, tensor in kept.items() if isinstance(tensor, nn.Parameter) or name in stored}


def arguments(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """The arguments of a function by name."""
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def pair(value: Any) -> Size:  # noqa: ANN401
    """Height and width of a window that is given as one number or as two."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def solid(value: Any) -> Size:  # noqa: ANN401
    """A window in a volume as one in its slices that lie one below the other: as many values, and as many steps."""
    depth, height, width = (value,) * 3 if isinstance(value, int) else value
    return (depth * height, width)


def along(value: Any) -> Size:  # noqa: ANN401
    """The same of a window that runs along a sequence, which is as wide as one."""
    return (value if isinstance(value, int) else value[0], 1)
