"""Graphs of nas/onnx_values.py, written to and read from files. The only file that imports onnx, which is slow to import."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, external_data_helper, helper, inliner, numpy_helper, shape_inference

from nas import files
from nas.apart import Failed, apart
from nas.data.memory import available
from nas.errors import InvalidSetting
from nas.onnx_values import Graph, Node, Shape

_PLAIN = {AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING, AttributeProto.INTS, AttributeProto.FLOATS}
_STANDARD = ("", "ai.onnx")
# what the messages' and NumPy's readers raise for fields that do not fit each other
_UNREADABLE = (ValueError, TypeError, LookupError, OSError, OverflowError, AttributeError, onnx.checker.ValidationError)
_MOST_OF_A_SHAPE = 4096  # numbers of a constant that shapes may be computed of
_NUMBERS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_MOST_OPERATORS = 1_000_000
_GROWN = 64 << 20  # bytes by which functions and shapes may make a model larger


def to_bytes(graph: Graph, opset: int = 20, ir_version: int = 10) -> bytes:
    """Serialize a graph of standard operators, float32 inputs and outputs, as an ONNX model."""
    nodes = [_proto(node) for node in graph.nodes]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(t), name) for name, t in graph.tensors.items()]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in graph.inputs.items()]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, graph.shapes.get(n)) for n in graph.outputs]
    proto = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return shape_inference.infer_shapes(model).SerializeToString()  # outputs must have their shapes


def read(path: Path, input_shape: Shape | None = None) -> Graph:
    """Read a file and infer the shapes of its values for one image.

    A symbolic batch dimension is 1, other symbolic dimensions of the input are taken from `input_shape` (C, H, W). Constant
    nodes become tensors; the op of another domain than ONNX's own is DOMAIN::NAME; attributes that are no plain values, such
    as subgraphs, are left out. Raises InvalidSetting if the file is no ONNX file, or its input has another shape.
    """
    try:
        model = _load(path)
        _load_outside(model, path)
        constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        _fix_shapes(model, inputs, input_shape, path)
        _drop_weights(model)
        inferred = _changed(_infer_shapes, model, "the shapes in ONNX file {path} cannot be inferred ({reason})", path).graph
        _check_outputs(inferred)
        for node in inferred.node:
            if node.op_type == "Constant" and node.domain in _STANDARD:
                constants[node.output[0]] = _constant(node.attribute[0])
        return Graph(
            nodes=tuple(_node(node) for node in inferred.node if node.output[0] not in constants),
            tensors=constants,
            inputs=_known_shapes(inputs),
            outputs=tuple(value.name for value in inferred.output),
            shapes=_known_shapes([*inferred.value_info, *inferred.output]),
        )
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InvalidSetting(f"ONNX file {str(path)!r} is spoiled ({reason}); export it again") from error


def annotate(path: Path, notes: Mapping[str, str]) -> None:
    """Write `notes` into the metadata of an ONNX file, beside what is there. Raises InvalidSetting if it is none."""
    model = _opened(path)
    helper.set_model_props(model, {**{prop.key: prop.value for prop in model.metadata_props}, **notes})
    onnx.save(model, path)


def _load(path: Path) -> onnx.ModelProto:
    model = _opened(path)
    if not model.functions:
        return model
    if (size := _inlined_size(model)) > _MOST_OPERATORS:
        raise InvalidSetting(f"ONNX file {str(path)!r} has functions of {size:.3g} operators; export it again")
    return _changed(_inline_functions, model, "the functions of ONNX file {path} cannot be read ({reason})", path)


def _opened(path: Path) -> onnx.ModelProto:
    """The message of a file, without the data that it keeps in others."""
    try:
        model = onnx.load_model_from_string(files.read_regular(path))
    except OSError as error:
        raise InvalidSetting(f"cannot read ONNX file {str(path)!r}: {error.strerror or error}") from error
    except DecodeError as error:
        raise InvalidSetting(f"{str(path)!r} is no ONNX file ({error}); expected one that an exporter wrote") from error
    if not (model.opset_import and model.graph.node):  # any few bytes may be a message without fields
        raise InvalidSetting(f"{str(path)!r} is no ONNX file, it has no nodes; expected one that an exporter wrote")
    return model


def _inlined_size(model: onnx.ModelProto) -> int:
    """How many operators there are once functions stand in the place of calls. Raises ValueError for recursive ones."""
    called = {(f.domain, f.name): list(_operators(f.node)) for f in model.functions}
    order = TopologicalSorter({key: [call for call in calls if call in called] for key, calls in called.items()}).static_order()
    sizes: dict[tuple[str, str], int] = {}
    for key in order:
        sizes[key] = sum(sizes.get(call, 1) for call in called[key])
    return sum(sizes.get(call, 1) for call in _operators(model.graph.node))


def _operators(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    """Domain and name of operators, with those of the graphs that they hold."""
    for node in nodes:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _operators(graph.node)


def _load_outside(model: onnx.ModelProto, path: Path) -> None:
    """Read the constants that stand in files of their own. Raises InvalidSetting for more than fits into memory."""
    outside = {t.name: t for t in model.graph.initializer if external_data_helper.uses_external_data(t)}
    sizes = {name: math.prod(t.dims) * helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for name, t in outside.items()}
    if (needed := sum(sizes.values())) > available():
        raise InvalidSetting(f"ONNX file {str(path)!r} claims {needed:,} bytes of weights, and memory has not so many")
    for name, tensor in outside.items():
        lengths = [int(entry.value) for entry in tensor.external_data if entry.key == "length"]
        if not lengths:
            tensor.external_data.add(key="length", value=str(sizes[name]))
        if max(lengths, default=0) > sizes[name]:
            raise ValueError(f"{name[:40]!r} of {sizes[name]} bytes claims {max(lengths)} of another file")
        external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))


def _check_outputs(graph: onnx.GraphProto) -> None:
    """Raise ValueError for operators whose first output has no name, or the name of another one."""
    first = Counter(node.output[0] for node in graph.node if node.output)
    if "" in first or first.total() < len(graph.node) or len(first) < first.total():
        raise ValueError("an operator has no output, or the output of another one")


def _drop_weights(model: onnx.ModelProto) -> None:
    """Leave out the numbers of large constants: shapes do not depend on them, and messages hold 2 GB at most."""
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _MOST_OF_A_SHAPE:
            for name in _NUMBERS:
                tensor.ClearField(name)


def _changed(work: Callable[[bytes], bytes], model: onnx.ModelProto, told: str, path: Path) -> onnx.ModelProto:
    """What `work`, which is written in C++, makes of a model. Raises InvalidSetting."""
    data = model.SerializeToString()
    try:
        return onnx.load_model_from_string(apart(work, data, _GROWN + 2 * len(data)))
    except (Failed, DecodeError) as error:
        raise InvalidSetting(f"{told.format(path=repr(str(path)), reason=error)}; export it again") from error


def _infer_shapes(data: bytes) -> bytes:
    return shape_inference.infer_shapes(onnx.load_model_from_string(data), data_prop=True).SerializeToString()


def _inline_functions(data: bytes) -> bytes:
    return inliner.inline_local_functions(onnx.load_model_from_string(data)).SerializeToString()


def _fix_shapes(model: onnx.ModelProto, inputs: list[onnx.ValueInfoProto], image: Shape | None, path: Path) -> None:
    """Put numbers in the place of symbolic dimensions; where nothing is known of them, inference finds them."""
    symbols: dict[str, int] = {}
    for i, value in enumerate(inputs):
        dims, text = value.type.tensor_type.shape.dim, _text(value)
        wanted = (1, *image) if image and i == 0 else (1, *(0 for _ in dims[1:]))
        if len(dims) != len(wanted) or any(w and d.dim_value not in (0, w) for w, d in zip(wanted[1:], dims[1:], strict=True)):
            raise InvalidSetting(f"ONNX file {str(path)!r} reads {text}, which the shape {image} of an image does not fit")
        for dim, size in zip(dims, wanted, strict=True):
            size = dim.dim_value or size or symbols.get(dim.dim_param, 0)
            if not size:
                raise InvalidSetting(f"ONNX file {str(path)!r} reads {text}; give the shape of an image, like 3x224x224")
            if dim.dim_param:
                symbols[dim.dim_param] = size
            dim.dim_value = size
    for value in (*model.graph.value_info, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]
            elif not dim.dim_value:
                dim.ClearField("dim_param")


def _text(value: onnx.ValueInfoProto) -> str:
    """An input as the user knows it: `images of shape batch x 3 x 32 x 32`."""
    shape = " x ".join(str(d.dim_value or d.dim_param or "?") for d in value.type.tensor_type.shape.dim)
    return f"{value.name!r} of shape {shape}"


def _known_shapes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, Shape]:
    """Shapes by name, of those values all of whose dimensions are numbers."""
    found: dict[str, Shape] = {}
    for value in values:
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return found


def _proto(node: Node) -> onnx.NodeProto:
    proto = helper.make_node(node.op, node.inputs, node.outputs, node.name or None)
    proto.attribute.extend(helper.make_attribute(name, value) for name, value in node.attributes.items())
    return proto


def _node(node: onnx.NodeProto) -> Node:
    op = node.op_type if node.domain in _STANDARD else f"{node.domain}::{node.op_type}"
    attributes = {a.name: _plain(a) for a in node.attribute if a.type in _PLAIN}
    return Node(op, tuple(node.input), tuple(node.output), attributes, node.name)


def _plain(attribute: onnx.AttributeProto) -> Any:  # noqa: ANN401 - onnx has no types
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, int | float) else tuple(value)


def _constant(attribute: onnx.AttributeProto) -> np.ndarray:
    value = helper.get_attribute_value(attribute)
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.array(value)
