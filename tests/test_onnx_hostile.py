"""Hostile and broken ONNX files: each is refused in one line, or counted; none ends the process, waits or fills the memory."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas import apart, onnx_io
from nas.cost.counting import count
from nas.cost.onnx_plan import onnx_plan
from nas.errors import InvalidSetting

IMAGE = [1, 3, 8, 8]
FILTERS = np.ones((4, 3, 3, 3), np.float32)


def conv(**attributes):
    return helper.make_node("Conv", ["images", "w"], ["out"], **{"pads": [1, 1, 1, 1], **attributes})


def model(*nodes, image=IMAGE, tensors=(), functions=(), opset=20):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes or [conv()]),
        "g",
        [info("images", TensorProto.FLOAT, image)],
        [info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(FILTERS, "w"), *tensors],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def function(name, *nodes):
    return helper.make_function(
        "own", name, ["X"], ["Y"], list(nodes), [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    )


def call(name, before="images", after="out"):
    return helper.make_node(name, [before], [after], domain="own")


def changed(change, *nodes, **parts):
    made = model(*nodes, **parts)
    change(made)
    return made


def outside(**entries):
    """A model whose weights stand in another file, or claim so."""
    made = model()
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weights.external_data.add(key=key, value=str(value))
    return made


def without_type(made):
    made.graph.input[0].ClearField("type")


def huge(made):
    made.graph.initializer[0].dims[:] = [10**12, 3, 3, 3]


def twice(made):
    made.graph.node.append(made.graph.node[0])


def nameless(made):
    made.graph.node[0].ClearField("output")


def kindless(made):
    made.graph.initializer[0].data_type = 99


def text_for_numbers(made):
    made.graph.node[0].attribute.append(helper.make_attribute("group", "four"))


def negative(made):
    made.graph.node[0].op_type = "MaxPool"
    del made.graph.node[0].input[1:]
    made.graph.node[0].attribute.append(helper.make_attribute("kernel_shape", [3, 3]))
    made.graph.node[0].attribute.append(helper.make_attribute("strides", [-2, 0]))


DOUBLING = [function("F0", helper.make_node("Relu", ["X"], ["Y"]))] + [
    function(f"F{n}", call(f"F{n - 1}", "X", "H"), call(f"F{n - 1}", "H", "Y")) for n in range(1, 40)
]
REFUSED = {
    "group 0": model(conv(group=0)),
    "group -1": model(conv(group=-1)),
    "group 2 of weights for 1": model(conv(group=2)),
    "a kind of padding that is no text": model(conv(auto_pad=[1, 2], group=b"\xff")),
    "group that is a text": changed(text_for_numbers),
    "strides 0": changed(negative),
    "kernel of one number": model(conv(kernel_shape=[3])),
    "pads of three": model(conv(pads=[1, 1, 1])),
    "one input": model(helper.make_node("Conv", ["images"], ["out"])),
    "no such weight": model(helper.make_node("Conv", ["images", "v"], ["out"])),
    "channels that do not fit": model(image=[1, 5, 8, 8]),
    "images of 10^13": model(image=[1, 3, 10**13, 10**13]),
    "images of -1": model(image=[1, 3, -1, 8]),
    "batch of 4": model(image=[4, 3, 8, 8]),
    "an image without type": changed(without_type),
    "weights of 10^12 filters": changed(huge),
    "weights of an unknown type": changed(kindless),
    "a recursive function": model(call("F"), functions=[function("F", call("F", "X", "Y"))]),
    "two recursive functions": model(
        call("F"), functions=[function("F", call("G", "X", "Y")), function("G", call("F", "X", "Y"))]
    ),
    "functions of 2^39 operators": model(call("F39"), functions=DOUBLING),
    "an output put out twice": changed(twice),
    "no output": changed(nameless),
    "perm of seven": model(helper.make_node("Transpose", ["images"], ["out"], perm=[0, 1, 2, 3, 4, 5, 6])),
    "weights in a file that is not there": outside(location="none.bin"),
    "weights outside": outside(location="../../../../etc/passwd"),
    "weights in a pipe": outside(location="pipe"),
    "weights of another size": outside(location="weights.bin", length=10),
    "weights of terabytes": outside(location="weights.bin", length=10**13),
    "weights before the file": outside(location="weights.bin", offset=-5),
}  # fmt: skip


@pytest.fixture
def home(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "weights.bin").write_bytes(FILTERS.tobytes())
    return tmp_path


def saved(home: Path, made: onnx.ModelProto) -> Path:
    (home / "x.onnx").write_bytes(made.SerializeToString())
    return home / "x.onnx"


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_exporter_writes_is_refused_in_one_line(home, name):
    with pytest.raises(InvalidSetting) as caught:
        onnx_plan(saved(home, REFUSED[name]))
    text = str(caught.value)
    assert "x.onnx'" in text and "\n" not in text and len(text) < 700


def test_weights_beside_the_file_are_read(home):
    assert count(onnx_plan(saved(home, outside(location="weights.bin")))).metrics["macs"].value == 27 * 4 * 64


def test_texts_that_are_none_are_escaped(home):
    path = saved(home, model(helper.make_node("Odd", ["images"], ["out"], domain="own", mode=b"\xff")))
    assert onnx_io.read(path).nodes[0].attributes == {"mode": "\\xff"}


@pytest.mark.parametrize("path", ["pipe", "null"])
def test_what_is_no_regular_file_is_not_waited_for(home, path):
    (home / "null").symlink_to(os.devnull)
    with pytest.raises(InvalidSetting, match="no regular file"):
        onnx_plan(home / path)


def test_two_operators_of_one_name_both_count(home):
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["first"], "out", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["first", "v"], ["out"], pads=[1, 1, 1, 1]),
    ]
    weights = numpy_helper.from_array(np.ones((2, 4, 3, 3), np.float32), "v")
    plan = onnx_plan(saved(home, model(*nodes, tensors=[weights])))
    assert [layer.name for layer in plan.layers] == ["out", "out:2"]
    assert count(plan).metrics["macs"].value == 27 * 4 * 64 + 36 * 2 * 64


def test_weights_are_no_part_of_the_shapes(home):
    large = numpy_helper.from_array(np.arange(8 * 3 * 49, dtype=np.float32).reshape(8, 3, 7, 7).repeat(4, 0), "v")
    node = helper.make_node("Conv", ["images", "v"], ["out"], pads=[3, 3, 3, 3])
    graph = onnx_io.read(saved(home, model(node, tensors=[large])))
    assert graph.shapes["out"] == (1, 32, 8, 8) and graph.tensors["v"].shape == (32, 3, 7, 7)
    assert np.array_equal(graph.tensors["v"], numpy_helper.to_array(large))


# -- work in a process of its own


def echoed(data: bytes) -> bytes:
    return data


def test_work_apart_gives_its_answer():
    data = os.urandom(3 << 20)
    assert apart.apart(echoed, data, 4 << 20) == data


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda data: os.abort(), "what reads it ended by SIGABRT"),
        (lambda data: os._exit(3), "what reads it ended by itself with status 3"),
        (lambda data: bytes(5000), "gives more than 1000 bytes"),
        (lambda data: os.kill(os.getpid(), 9) or b"", "ended by SIGKILL"),
        (lambda data: {}["a\nb"], "'a\\\\nb'"),
        (lambda data: bytes(8 << 30), "MemoryError"),
    ],
)
def test_work_apart_that_fails_is_told(work, said):
    with pytest.raises(apart.Failed, match=said):
        apart.apart(work, b"", 1000)


def test_work_apart_ends():
    with pytest.raises(apart.Failed, match="takes more than 0 s"):
        apart.apart(lambda data: [None for _ in iter(int, 1)], b"", 1000, seconds=0.1)
