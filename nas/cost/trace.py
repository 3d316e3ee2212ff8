"""The plan of any module that torch.fx can trace: the layers that it runs, with their shapes.

Norms and activations are part of the layer that they follow, as in nas/plan.py. For the networks of our spaces the traced plan
equals the space's own: this keeps the fast analytic count and the real module the same.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor, fx

from nas.cost.evaluation_mode import evaluation_mode
from nas.cost.trace_handlers import FUNCTIONS, MODULES, Draft, Shape, as_map, parameter, shared, unknown
from nas.cost.users_code import place_of
from nas.errors import InvalidSetting
from nas.plan import INPUT, Layer, Plan


class Untraceable(InvalidSetting):
    """A module whose plan cannot be read, because torch.fx cannot follow its forward or the example does not fit it."""


def trace(module: nn.Module, example: Tensor) -> Plan:
    """Read the plan of `module` for one image, the first of `example` (N, C, H, W).

    Runs the module once in evaluation mode and leaves it as it was. An operation without a handler becomes a layer whose `op`
    is its own name, so that `count` names it as uncounted. Parameters that the run does not touch come first, as layers of
    their own, since they are stored all the same. Raises Untraceable.
    """
    image = example[:1]
    with evaluation_mode(module), torch.no_grad():
        graph, shapes = _run(module, image)
        draft = Draft(graph, shapes)
        for node in graph.graph.nodes:
            _read(draft, node)
    idle = [_idle_parameter(n, tuple(p.shape)) for n, p in module.named_parameters() if p not in draft.claimed]
    return Plan(*as_map(tuple(image.shape)), (*idle, *draft.layers.values()))


def _run(module: nn.Module, image: Tensor) -> tuple[fx.GraphModule, dict[fx.Node, Shape]]:
    """Trace `module`, and run the trace for the shapes."""
    try:
        graph = fx.symbolic_trace(module)
        shapes = _Shapes(graph)
        shapes.run(image)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise Untraceable(
            f"{type(module).__name__} cannot be traced on an input of shape {tuple(image.shape)} ({reason}{place_of(error)}); "
            "check the shape, and keep control flow that depends on tensors out of its forward"
        ) from error
    return graph, shapes.shapes


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shape of each node's tensor; of several, the first one's."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[fx.Node, Shape] = {}

    def run_node(self, n: fx.Node) -> object:
        """Run one node."""
        result = super().run_node(n)
        first = _first_tensor(result)
        if first is not None:
            self.shapes[n] = tuple(first.shape)
        return result


def _first_tensor(value: object) -> Tensor | None:
    """The first tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return next((found for found in map(_first_tensor, parts) if found is not None), None)


def _idle_parameter(name: str, shape: Shape) -> Layer:
    channels, size = as_map(shape)
    return Layer(name, "parameter", (), channels, channels, size, size)


def _read(draft: Draft, node: fx.Node) -> None:
    """Add to the draft what `node` does; sizes and other plain numbers are no layers."""
    if node not in draft.shapes or node.op == "output":
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
