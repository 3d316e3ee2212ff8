"""The plan of an ONNX file: its operators as the layers that nas/cost/trace.py reads from a module.

What each operator is stands in nas/cost/onnx_operators.py. Norms and activations are part of the layer that they
follow; exporters have mostly folded the norms already, so that a convolution has a bias in place of scale and shift.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nas import onnx_io
from nas.cost.onnx_operators import OPERATORS, SHAPE_ONLY, Draft, readers_of, unknown
from nas.cost.trace_draft import Shape, as_map
from nas.errors import InvalidSetting
from nas.onnx_values import Graph, Node
from nas.plan import INPUT, Plan

# what an activation and the product with its own input make together
_GATES = {"Sigmoid": "Swish", "HardSigmoid": "HardSwish"}


def onnx_plan(path: Path, input_shape: Shape | None = None) -> Plan:
    """Read the plan of an ONNX file for one image, of `input_shape` (C, H, W) where the file leaves that open.

    An operator without a handler becomes a layer whose `op` is its own name, so that `count` names it as uncounted. A constant
    that is read like an activation counts as a parameter. Raises InvalidSetting if the file is no ONNX file, its batch is
    fixed to another size than 1, or a shape cannot be inferred.
    """
    graph = onnx_io.read(path, input_shape)
    image = next(iter(graph.inputs.values()), ())
    if len(image) < 2 or image[0] != 1:
        raise InvalidSetting(
            f"ONNX file {str(path)!r} reads {image}; expected one image, export it with batch size 1 or dynamic"
        )
    graph = replace(graph, nodes=tuple(_gates_as_activations(graph)))
    draft = Draft(graph, {**{n: t.shape for n, t in graph.tensors.items()}, **graph.shapes, **graph.inputs}, str(path))
    draft.hold(tuple(graph.inputs), INPUT)
    for node in graph.nodes:
        try:
            _read(draft, node)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # inputs and axes that an operator must have
            draft.refuse(f"{node.op} {node.name or node.outputs[0]!r} is none ({type(error).__name__}: {error})")
    if not draft.layers:
        draft.refuse("nothing in it reads its input")
    return Plan(*as_map(image), tuple(draft.layers.values()))


def _read(draft: Draft, node: Node) -> None:
    """Add to the draft what `node` does; what is computed from constants and shapes alone is no layer."""
    if draft.inputs(node) and node.op not in SHAPE_ONLY:
        return OPERATORS.get(node.op, unknown)(draft, node)
    first = node.inputs[0] if node.inputs else node.outputs[0]
    draft.origin[node.outputs[0]] = draft.origin.get(first, first)


def _gates_as_activations(graph: Graph) -> list[Node]:
    """Make one activation of x * sigmoid(x), and of x * hardsigmoid(x): ONNX has had no operator for them for long."""
    readers = readers_of(graph)
    gates = {n.outputs[0]: n for n in graph.nodes if n.op in _GATES and readers[n.outputs[0]] == 1}
    joined: dict[str, Node] = {}
    for node in graph.nodes:
        gate = next((gates[i] for i in node.inputs if i in gates), None)
        if gate and node.op == "Mul" and gate.inputs[0] in node.inputs:
            joined.pop(gate.outputs[0], None)
            node = replace(node, op=_GATES[gate.op], inputs=gate.inputs)
        joined[node.outputs[0]] = node
    return list(joined.values())
