from collections import OrderedDict

import pytest
import torch
from networks import randomize_norms
from torch import nn

from compress.prune.sources import load_into, read_weights
from nas import weights
from nas.errors import InvalidSetting


def net(width=4, classes=3, seed=0):
    module = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, width, 3), norm=nn.BatchNorm2d(width), head=nn.Linear(width, classes)))
    return randomize_norms(module, seed)


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


STORED = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "parallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "without counters": lambda state: {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")},
}


def assert_loaded(path, source):
    module = net(seed=1)
    load_into(module, path)
    for name, tensor in source.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor)


def refusal(path, module=None):
    with pytest.raises(InvalidSetting) as caught:
        load_into(module or net(), path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


# -- what is read


@pytest.mark.parametrize("stored", STORED)
def test_state_dicts_as_training_scripts_store_them(stored, tmp_path):
    source = net()
    torch.save(STORED[stored](source.state_dict()), tmp_path / "w.pth")
    assert_loaded(tmp_path / "w.pth", source)


@pytest.mark.parametrize("stored", ["alone", "compiled", "without counters"])
def test_safetensors_whatever_the_name_of_the_file(stored, tmp_path):
    source = net()
    for name in ("w.safetensors", "w.bin"):
        weights.save(STORED[stored](source.state_dict()), tmp_path / name)
        assert_loaded(tmp_path / name, source)


def test_a_prefix_of_some_names_stays(tmp_path):
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == state.keys()


# -- what does not fit


def test_other_shapes_are_named_with_both(tmp_path):
    torch.save(net(classes=5).state_dict(), tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert "do not fit Sequential: head.weight is (3, 4) in the network and (5, 4) in the file; head.bias is (3,)" in message
    assert "more" not in message


def test_only_the_first_mismatches_are_named(tmp_path):
    torch.save(net(width=8).state_dict(), tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert "conv.weight is (4, 3, 3, 3) in the network and (8, 3, 3, 3) in the file; conv.bias is (4,)" in message
    assert "norm.bias" not in message and "; and 4 more; " in message


def test_missing_and_unknown_names(tmp_path):
    state = net().state_dict()
    state["neck.weight"] = state.pop("head.weight")
    torch.save(state, tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert "head.weight (3, 4) is missing in the file; neck.weight (3, 4) is unknown to the network" in message


# -- what cannot be read


def test_a_pickled_module_is_refused_with_the_remedy(tmp_path):
    torch.save(net(), tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert "hold the Python object torch.nn.modules.container.Sequential" in message
    assert "torch.save(model.state_dict(), 'weights.pt')" in message


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path):
    assert "No such file" in refusal(tmp_path / "w.pt")
    assert "Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not weights at all", b"\x80\x02broken pickle", bytes(100)])
def test_other_files(content, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    assert "is neither a safetensors file nor a state dict" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("save", [torch.save, weights.save])
def test_torn_files(save, tmp_path):
    path = tmp_path / "w"
    save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-40])
    refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "net": {}}, "'epoch' is int and no tensor; give a state dict, alone or under 'state_dict' or 'model'"),
        ({1: torch.ones(1)}, "1 is Tensor"),
        ([torch.ones(1)], "hold list and no tensors by name"),
        ({"model": {}}, "hold dict and no tensors by name"),
    ],
)
def test_other_contents(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    assert message in refusal(tmp_path / "w.pt")
