"""The plan of any module that torch.fx can trace: the layers that it runs, with their shapes.

Norms and activations are part of the layer that they follow, as in nas/plan.py. For the networks of our spaces the traced plan
equals the space's own: this keeps the fast analytic count and the real module the same. Each layer is held against what torch
computes for it, and against the tensors that its module has: what a layer does not describe is counted beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor, fx

from nas.cost.counting import MACS, macs, params
from nas.cost.evaluation_mode import computed_once, fitting, left_as_it_was
from nas.cost.shape_tracer import ShapeTracer
from nas.cost.storage import layer_tensors
from nas.cost.trace_draft import Draft, Handler, as_map, own_tensors, parameter, unknown
from nas.cost.trace_handlers import FUNCTIONS, MODULES
from nas.cost.users_code import place_of, remedy_of
from nas.errors import InvalidSetting
from nas.plan import INPUT, Layer, Plan


class Untraceable(InvalidSetting):
    """A module whose plan cannot be read, because torch.fx cannot follow its forward or the example does not fit it."""


def trace(module: nn.Module, example: Tensor) -> Plan:
    """Read the plan of `module` for one image, the first of `example` (N, C, H, W).

    Runs the module once in evaluation mode and leaves it as it was, but for tensors that it changes in place. An operation
    that cannot be counted becomes a layer whose `op` is its own name, so that `count` names it as uncounted. Parameters that
    the run does not touch, and such buffers, come first, as layers of their own, since they are stored all the same. Raises
    Untraceable.
    """
    with left_as_it_was(module), torch.no_grad():
        module.eval()
        with computed_once(module):
            tracer = ShapeTracer(fitting(module, example[:1]))
            graph = _run(tracer, module)
        draft = Draft(module, graph, tracer.shapes, tracer.works, frozenset(module.state_dict()))
        for node in graph.graph.nodes:
            _read(draft, node)
        run = draft.layers
        draft.layers = {}
        for name, tensor in own_tensors(module).items():
            if draft.free([tensor]) and name not in run:
                draft.hold(name, tensor)
        return Plan(*as_map(tuple(example[:1].shape)), (*draft.layers.values(), *run.values(), *_missing(module, draft, run)))


def _run(tracer: ShapeTracer, module: nn.Module) -> fx.GraphModule:
    """Trace `module` with the shapes of its tensors."""
    try:
        return tracer.traced(module)
    except Exception as error:  # the code of a network can raise anything
        shape = tuple(tracer.image.shape)
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Untraceable(
            f"{type(module).__name__} cannot be traced on an input of shape {shape} ({reason}{place_of(error)}); "
            f"{remedy_of(error)}"
        ) from error


# -- nodes


def _read(draft: Draft, node: fx.Node) -> None:
    """Add to the draft what `node` does; sizes and other plain numbers are no layers."""
    if node not in draft.shapes or node.op == "output" or (node.op == "get_attr" and not node.users):
        return
    if node.op == "placeholder":
        draft.source[node] = INPUT
    elif node.op == "get_attr":
        parameter(draft, node)
    elif node.op == "call_module":
        _with_tensors(draft, node)
    else:
        _checked(FUNCTIONS.get(draft.operation(node), unknown), draft, node)


def _checked(handler: Handler, draft: Draft, node: fx.Node) -> None:
    """Read a node; where the layers of `handler` have other multiply-adds than torch computes, one layer has those."""
    before, computed = dict(draft.layers), draft.works[node].macs
    handler(draft, node)
    if computed or len(draft.layers) > len(before):
        new, old = _changed(before, draft.layers)
        known = all(layer.op in MACS for layer in new.values())
        if known and _sum(macs, new.values()) - _sum(macs, old.values()) != computed:
            draft.layers = before
            unknown(draft, node)


def _with_tensors(draft: Draft, node: fx.Node) -> None:
    """Read a module. Tensors that its layers do not describe, or that another layer has, are layers of their own."""
    before, tensors = dict(draft.layers), own_tensors(draft.module(node))
    _checked(_handler(draft.module(node)), draft, node)
    if not tensors:
        return
    new, old = _changed(before, draft.layers)
    described = tuple(_sum(size, new.values()) - _sum(size, old.values()) for size in (params, _stored))
    if draft.free(tensors.values()) and described == _sizes(tensors):
        return draft.claimed.update(tensors.values())
    added = [draft.layers.pop(name) for name in new if name not in before]
    for name, tensor in tensors.items():
        if draft.free([tensor]):
            draft.hold(f"{node.target}.{name}", tensor)
    draft.layers.update((layer.name, replace(layer, own=False)) for layer in added)


def _handler(module: nn.Module) -> Handler:
    """What reads a module: that of its class, or of the class whose forward it has."""
    kind = type(module)
    same = (base for base in kind.__mro__ if base in MODULES and base.forward is kind.forward)
    return MODULES[base] if (base := next(same, None)) else unknown


# -- what is described


def _changed(before: Mapping[str, Layer], after: Mapping[str, Layer]) -> tuple[dict[str, Layer], dict[str, Layer]]:
    """The layers that are new or others than before, and what they were before."""
    new = {name: layer for name, layer in after.items() if before.get(name) is not layer}
    return new, {name: before[name] for name in new if name in before}


def _sum(size: Callable[[Layer], int], layers: Iterable[Layer]) -> int:
    return sum(map(size, layers))


def _stored(layer: Layer) -> int:
    return sum(tensor.bytes for tensor in layer_tensors(layer))


def _sizes(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Number of parameters, and bytes of all."""
    parameters = sum(t.numel() for t in tensors.values() if isinstance(t, nn.Parameter))
    return parameters, sum(t.numel() * t.itemsize for t in tensors.values())


def _missing(module: nn.Module, draft: Draft, run: Mapping[str, Layer]) -> list[Layer]:
    """What the layers lack of the module's own parameters and bytes, as a layer that cannot be counted; mostly nothing."""
    layers, wanted = [*draft.layers.values(), *run.values()], _sizes(own_tensors(module))
    found = (_sum(params, layers), _sum(_stored, layers))
    if found == wanted:
        return []
    words = ("parameters", "bytes of tensors")
    text = ", ".join(f"{f:,} of {w:,} {word}" for f, w, word in zip(found, wanted, words, strict=True) if f != w)
    return [Layer(type(module).__name__, text, (), 1, 1, (1, 1), (1, 1))]
