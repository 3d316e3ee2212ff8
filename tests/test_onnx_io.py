import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import TensorProto, helper

from nas.errors import InvalidSetting
from nas.onnx_io import read, to_bytes
from nas.onnx_values import Graph, Node
from nas.seeding import numpy_rng

CONV = {"kernel_shape": (3, 5), "pads": (1, 2, 1, 2), "strides": (2, 1), "group": 2}


def convolution():
    """A grouped convolution, its activation, and a leaky one."""
    rng = numpy_rng(0, "onnx")
    tensors = {"w": rng.normal(size=(6, 2, 3, 5)).astype(np.float32), "b": rng.normal(size=6).astype(np.float32)}
    nodes = (
        Node("Conv", ("x", "w", "b"), ("y",), CONV, "first"),
        Node("Relu", ("y",), ("z",)),
        Node("LeakyRelu", ("y",), ("l",), {"alpha": 0.5}, "leaky"),
    )
    return Graph(nodes, tensors, {"x": (1, 4, 8, 6)}, ("z", "l"))


def saved(tmp_path, model):
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def model_of(nodes, image, tensors=(), domains=()):
    """A model from `images` to `out`, both float32; `image` may have symbols."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("images", TensorProto.FLOAT, image)], [value("out", TensorProto.FLOAT, None)], tensors
    )
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_a_graph_runs_as_torch_does():
    graph = convolution()
    session = onnxruntime.InferenceSession(to_bytes(graph), providers=["CPUExecutionProvider"])
    x = torch.from_numpy(numpy_rng(1, "onnx").normal(size=(1, 4, 8, 6)).astype(np.float32))
    weight, bias = (torch.from_numpy(graph.tensors[n]) for n in ("w", "b"))
    expected = F.conv2d(x, weight, bias, stride=(2, 1), padding=(1, 2), groups=2)
    relu, leaky = session.run(["z", "l"], {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(relu), expected.relu())
    torch.testing.assert_close(torch.from_numpy(leaky), F.leaky_relu(expected, 0.5))


def test_a_graph_is_read_back_with_its_shapes(tmp_path):
    graph = convolution()
    model = to_bytes(graph)
    onnx.checker.check_model(model, full_check=True)
    found = read(saved(tmp_path, model))
    assert found.nodes == graph.nodes and found.inputs == graph.inputs and found.outputs == graph.outputs
    assert found.shapes == dict.fromkeys("yzl", (1, 6, 4, 6))
    assert all(np.array_equal(found.tensors[n], t) for n, t in graph.tensors.items())


def test_symbolic_dimensions_become_numbers(tmp_path):
    pool = helper.make_node("MaxPool", ["images"], ["out"], kernel_shape=[2, 2], strides=[2, 2])
    path = saved(tmp_path, model_of([pool], ["batch", 3, "height", "width"]))
    assert read(path, (3, 8, 12)).shapes == {"out": (1, 3, 4, 6)}
    with pytest.raises(InvalidSetting, match=r"model.onnx' reads 'images' of shape batch x 3 x height x width; give the shape"):
        read(path)
    with pytest.raises(InvalidSetting, match=r"which the shape \(4, 8, 8\) of an image does not fit"):
        read(path, (4, 8, 8))
    with pytest.raises(InvalidSetting, match="does not fit"):
        read(path, (3, 8))


def test_shapes_are_followed_through_computed_sizes(tmp_path):
    """As torch.jit exports x.flatten(1): the batch size is read and given to a reshape."""
    nodes = [
        helper.make_node("Shape", ["images"], ["s"], start=0, end=1),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["s", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["images", "t"], ["out"]),
    ]
    found = read(saved(tmp_path, model_of(nodes, ["batch", 3, 4, 4])))
    assert found.shapes["out"] == (1, 48)
    assert [n.op for n in found.nodes] == ["Shape", "Concat", "Reshape"] and found.tensors["rest"].tolist() == [-1]


def test_what_is_not_plain_is_left_out_and_other_domains_are_named(tmp_path):
    tensor = helper.make_tensor("value", TensorProto.FLOAT, [1], [2.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["filled"], value=tensor),
        helper.make_node("Fancy", ["images", "filled"], ["out"], domain="com.example", mode="fast"),
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [3])
    found = read(saved(tmp_path, model_of(nodes, [1, 3], [shape], ["com.example"])))
    assert [(n.op, n.attributes) for n in found.nodes] == [
        ("ConstantOfShape", {}),
        ("com.example::Fancy", {"mode": "fast"}),
    ]
    assert found.shapes == {"filled": (3,)} and set(found.tensors) == {"shape"}


@pytest.mark.parametrize("content", [b"", b"no onnx", b"\x08\x07", b"\xff" * 50])
def test_a_file_that_is_no_onnx_is_refused(tmp_path, content):
    with pytest.raises(InvalidSetting, match=r"model\.onnx' is no ONNX file"):
        read(saved(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSetting, match=r"cannot read ONNX file '.*none.onnx': No such file"):
        read(tmp_path / "none.onnx")
    with pytest.raises(InvalidSetting, match="Is a directory"):
        read(tmp_path)
