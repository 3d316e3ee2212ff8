"""Archives of torch.export are looked into before torch reads them: what could execute is refused and not executed."""

import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from compress.export import load_pt2, write_pt2
from nas.errors import CorruptRun, UnsafeFile

WEIGHTS = "data/weights/model_weights_config.json"


class Touch:
    """Executes when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class Shaped(nn.Module):
    """Sizes that depend on the batch end in expressions of the archive."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        x = nn.functional.gelu(self.conv(x), approximate="tanh")
        return self.linear(x.reshape(x.shape[0] * 2, 2, -1).reshape(x.shape[0], 4, -1).mean(2))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    write_pt2(Shaped().eval(), torch.zeros(1, 1, 8, 8), path)
    with zipfile.ZipFile(path) as content:
        return {info.filename.partition("/")[2]: content.read(info) for info in content.infolist()}


def packed(tmp_path, members):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as content:
        for name, data in members.items():
            content.writestr(f"model/{name}", data)
    return path


def edited(archive, name, change):
    value = json.loads(archive[name])
    change(value)
    return {**archive, name: json.dumps(value)}


def graph(value):
    return value["graph_module"]["graph"]


def test_what_is_written_is_opened_and_gives_the_same_logits(tmp_path):
    network, images = Shaped().eval(), torch.randn(3, 1, 8, 8)
    write_pt2(network, images[:1], tmp_path / "model.pt2")
    with torch.no_grad():
        assert torch.equal(load_pt2(tmp_path / "model.pt2")(images), network(images))


@pytest.mark.parametrize("member", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt"])
def test_pickles_are_not_opened(archive, tmp_path, member):
    path = packed(tmp_path, {**archive, member: pickle.dumps(Touch(tmp_path / "executed"))})
    with pytest.raises(UnsafeFile, match="could execute code"):
        load_pt2(path)
    assert not (tmp_path / "executed").exists()


def test_a_weight_that_is_pickled_is_not_opened(archive, tmp_path):
    def change(value):
        next(iter(value["config"].values()))["use_pickle"] = True

    members = edited(archive, WEIGHTS, change)
    with pytest.raises(UnsafeFile, match="the pickled tensor"):
        load_pt2(packed(tmp_path, {**members, "data/weights/weight_0": pickle.dumps(Touch(tmp_path / "executed"))}))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "member", ["data/constants/custom_obj_0", "data/constants/opaque_obj_0", "data/aotinductor/model/a.so", "extra/a", "x"]
)
def test_members_that_no_network_needs_are_refused(archive, tmp_path, member):
    with pytest.raises(UnsafeFile, match="the member"):
        load_pt2(packed(tmp_path, {**archive, member: b"x"}))


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.torchvision.write_file.default",
        "torch.ops.aten.__class__.__init__",
        "_operator.methodcaller",
        "math.__loader__.load_module",
        "#x:y",
        "torch.ops.load_library",
    ],
)
def test_calls_of_anything_but_tensor_operators_are_refused(archive, tmp_path, target):
    def change(value):
        node = graph(value)["nodes"][0]
        node["target"] = target
        node["inputs"].append({"name": "x", "arg": {"as_string": "executed"}, "kind": 1})

    with pytest.raises(UnsafeFile, match="a call of"):
        load_pt2(packed(tmp_path, edited(archive, "models/model.json", change)))


def with_expression(text):
    def change(value):
        graph(value)["sym_int_values"]["x"] = {"as_expr": {"expr_str": text, "hint": None}}

    return change


def with_name(value):
    graph(value)["inputs"][0]["as_tensor"]["name"] = "x, y=print(1)"


def with_structure(value):
    signature = value["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = json.dumps([1, {"type": "os.system", "context": "null", "children_spec": []}])


def with_enum(value):
    signature = value["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = json.dumps([1, {"__enum__": True, "fqn": "os:system", "name": "x"}])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_expression("__import__('os').system('true')"), "the expression"),
        (with_expression("().__class__"), "the expression"),
        (with_expression("9**9**9"), "the expression"),
        (with_expression("Symbol('s0.x')"), "the expression"),
        (with_name, "the name"),
        (with_structure, "the structure"),
        (with_enum, "the structure"),
        (lambda value: value.update(verifiers=["OS"]), "the verifiers"),
    ],
)
def test_texts_that_torch_evaluates_are_refused(archive, tmp_path, change, said):
    with pytest.raises(UnsafeFile, match=said):
        load_pt2(packed(tmp_path, edited(archive, "models/model.json", change)))


def test_guards_and_metadata_are_dropped(archive, tmp_path):
    target = tmp_path / "executed"

    def change(value):
        value["guards_code"] = [f"open({str(target)!r}, 'w')"]
        for node in graph(value)["nodes"]:
            node["metadata"] = {"source_fn_stack": "a,torch.os.system"}

    loaded = load_pt2(packed(tmp_path, edited(archive, "models/model.json", change)))
    assert loaded(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert not target.exists()


def test_compressed_members_are_refused(archive, tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in archive.items():
            content.writestr(f"model/{name}", data)
    with pytest.raises(CorruptRun, match="the compressed member"):
        load_pt2(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_what_is_no_archive_is_said(tmp_path, content):
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(CorruptRun, match="no archive of torch.export"):
        load_pt2(path)
