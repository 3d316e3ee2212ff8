"""The plan of any module that torch.fx can trace: the layers that it runs, with their shapes.

Norms and activations are part of the layer that they follow, as in nas/plan.py. For the networks of our spaces the traced plan
equals the space's own: this keeps the fast analytic count and the real module the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn as nn
from torch import Tensor, fx

from nas.cost.evaluation_mode import left_as_it_was
from nas.cost.shape_tracer import ShapeTracer
from nas.cost.trace_draft import Draft, Shape, as_map, parameter, shared, unknown
from nas.cost.trace_handlers import FUNCTIONS, MODULES
from nas.cost.users_code import place_of
from nas.errors import InvalidSetting
from nas.plan import INPUT, Layer, Plan

# what the code of a network may raise for an example that does not fit it
_RAISED = (
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    LookupError,
    AssertionError,
    NameError,
    ArithmeticError,
)


class Untraceable(InvalidSetting):
    """A module whose plan cannot be read, because torch.fx cannot follow its forward or the example does not fit it."""


def trace(module: nn.Module, example: Tensor) -> Plan:
    """Read the plan of `module` for one image, the first of `example` (N, C, H, W).

    Runs the module once in evaluation mode and leaves it as it was, but for tensors that it changes in place. An operation
    without a handler becomes a layer whose `op` is its own name, so that `count` names it as uncounted. Parameters that the
    run does not touch, and such buffers, come first, as layers of their own, since they are stored all the same. Raises
    Untraceable.
    """
    with left_as_it_was(module), torch.no_grad():
        module.eval()
        graph, shapes = _run(module, example[:1])
        draft = Draft(graph, shapes, frozenset(module.state_dict()))
        for node in graph.graph.nodes:
            _read(draft, node)
    idle = [_idle("parameter", n, p) for n, p in module.named_parameters() if p not in draft.claimed]
    idle += [_idle("buffer", n, b) for n, b in _buffers(module, draft)]
    return Plan(*as_map(tuple(example[:1].shape)), (*idle, *draft.layers.values()))


def _run(module: nn.Module, image: Tensor) -> tuple[fx.GraphModule, dict[fx.Node, Shape]]:
    """Trace `module` with the shapes of its tensors."""
    tracer = ShapeTracer(image)
    try:
        graph = tracer.traced(module)
    except _RAISED as error:
        reason = str(error).strip().partition("\n")[0]
        raise Untraceable(
            f"{type(module).__name__} cannot be traced on an input of shape {tuple(image.shape)} ({reason}{place_of(error)}); "
            "check the shape, and keep control flow that depends on the values of tensors out of its forward"
        ) from error
    return graph, tracer.shapes


def _idle(op: str, name: str, tensor: Tensor) -> Layer:
    channels, size = as_map(tuple(tensor.shape))
    layer = Layer(name, op, (), channels, channels, size, size)
    return replace(layer, act_bits=8 * tensor.itemsize) if op == "buffer" else layer


def _buffers(module: nn.Module, draft: Draft) -> Iterator[tuple[str, Tensor]]:
    """Stored buffers that the graph does not read by themselves; those of a norm that runs are counted with it."""
    for name, buffer in module.named_buffers():
        owner = module.get_submodule(name.rpartition(".")[0])
        of_norm = isinstance(owner, nn.modules.batchnorm._NormBase) and (owner.weight is None or owner.weight in draft.claimed)
        if name in draft.stored and name not in draft.layers and not of_norm:
            yield name, buffer


def _read(draft: Draft, node: fx.Node) -> None:
    """Add to the draft what `node` does; sizes and other plain numbers are no layers."""
    if node not in draft.shapes or node.op == "output" or (node.op == "get_attr" and not node.users):
        return
    if node.op == "placeholder":
        draft.source[node] = INPUT
    elif node.op == "get_attr":
        parameter(draft, node)
    elif node.op == "call_module":
        module = draft.module(node)
        new = draft.claim(list(module.parameters()))
        (MODULES.get(type(module), unknown) if new else shared)(draft, node)
    else:
        FUNCTIONS.get(draft.operation(node), unknown)(draft, node)
