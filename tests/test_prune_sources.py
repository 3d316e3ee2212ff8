import argparse
import os
import re
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime
from enum import Enum
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import randomize_norms
from torch import nn

from compress.prune.sources import load_into, read_weights
from nas import weights
from nas.errors import InvalidSetting


def net(width=4, classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = OrderedDict(conv=nn.Conv2d(3, width, 3), norm=nn.BatchNorm2d(width), head=nn.Linear(width, classes))
    module = nn.Sequential(layers)
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
    """Load a file into a network with other weights; what is told, in one text."""
    module = net(seed=1)
    told = load_into(module, path)
    for name, tensor in source.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor)
    return " ".join(told)


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


class Kind(Enum):
    SMALL = 1


class Settings(dict):
    """As configuration libraries have it: a mapping with attributes."""

    def __init__(self, **values):
        super().__init__(values)
        self.frozen = True


class Slotted:
    __slots__ = ("lr",)

    def __init__(self):
        self.lr = 0.1


HARMLESS = {
    "namespace": argparse.Namespace(lr=0.1, out=Path("runs"), betas=(0.9, 0.99)),
    "numpy": {
        "best": np.float64(0.9),
        "flag": np.bool_(True),
        "curve": np.arange(3.0),
        "empty": np.zeros(0),
        "type": np.dtype("f4"),
    },
    "containers": {"a": defaultdict(list, x=[1]), "b": deque([1, 2]), "c": Counter("ab"), "d": {1, 2}, "e": frozenset([1])},
    "paths": [Path("a/b"), PurePosixPath("/c")],
    "others": [datetime(2024, 1, 2), Kind.SMALL, slice(1, 2), range(3), 1j, b"", SimpleNamespace(a=1)],
    "own classes": [Slotted(), SimpleNamespace(inner=Slotted())],
    "a mapping": Settings(lr=0.1, nested=Settings(a=np.float32(1))),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_objects_beside_the_weights_are_neither_imported_nor_in_the_way(kind, tmp_path):
    source = net()
    for zipped in (True, False):
        torch.save(
            {"args": HARMLESS[kind], "model": source.state_dict()}, tmp_path / "w", _use_new_zipfile_serialization=zipped
        )
        assert "took 'model'" in assert_loaded(tmp_path / "w", source)


def test_no_class_of_a_file_is_imported(tmp_path, monkeypatch):
    (tmp_path / "strange_training.py").write_text("class Config:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import strange_training

    torch.save({"cfg": strange_training.Config(), "model": net().state_dict()}, tmp_path / "w.pt")
    (tmp_path / "strange_training.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.delitem(sys.modules, "strange_training")
    declared = set(torch.serialization.get_safe_globals())
    assert_loaded(tmp_path / "w.pt", net())
    assert set(torch.serialization.get_safe_globals()) == declared


@pytest.mark.parametrize(("function", "args"), [(eval, ("1/0",)), (os.system, ("exit 3",)), (subprocess.Popen, ("x",))])
def test_what_runs_code_is_refused_by_name(function, args, tmp_path):
    class Evil:
        def __reduce__(self):
            return function, args

    torch.save({"model": net().state_dict(), "args": Evil()}, tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert re.search(rf"name \w+\.{function.__name__}, which runs code", message)
    assert "weights_only" not in message


@pytest.mark.parametrize("key", ["model_state_dict", "net", "ema", "params", "state_dict_ema", "my_network", "ema.module"])
def test_wrappers_are_told(key, tmp_path):
    content = net().state_dict()
    for part in reversed(key.split(".")):
        content = {part: content, "epoch": 3, "decay": torch.tensor(0.9)}
    torch.save(content, tmp_path / "w.pt")
    assert f"took {key!r}" in assert_loaded(tmp_path / "w.pt", net())


def test_the_average_is_taken_first_and_the_other_one_by_its_key(tmp_path):
    averaged, last = net(seed=2), net(seed=3)
    torch.save({"state_dict": last.state_dict(), "state_dict_ema": averaged.state_dict()}, tmp_path / "w.pt")
    told = assert_loaded(tmp_path / "w.pt", averaged)
    assert "took 'state_dict_ema'; there is also 'state_dict', to be had with --weights" in told
    assert_loaded(tmp_path / "w.pt:state_dict", last)
    assert "has no state dict 'model'; it has state_dict_ema, state_dict" in refusal_of(tmp_path / "w.pt:model")


def refusal_of(path):
    with pytest.raises(InvalidSetting) as caught:
        load_into(net(), path)
    return str(caught.value)


def test_the_state_dict_that_fits_is_taken(tmp_path):
    torch.save({"generator": net(width=7).state_dict(), "critic": net().state_dict()}, tmp_path / "w.pt")
    assert "took 'critic'" in assert_loaded(tmp_path / "w.pt", net())


def test_an_optimizer_with_named_state_is_no_network(tmp_path):
    source = net()
    optimizer = {"state": {name: {"exp_avg": t} for name, t in source.state_dict().items()}, "param_groups": [{"lr": 0.1}]}
    torch.save({"optimizer": optimizer, "rng_state": torch.get_rng_state(), "model": source.state_dict()}, tmp_path / "w.pt")
    assert_loaded(tmp_path / "w.pt", source)


@pytest.mark.parametrize("prefix", ["model.", "net.", "_orig_mod.module.", "module._orig_mod.", "model._orig_mod.", "a.b.c."])
def test_prefixes_in_any_order(prefix, tmp_path):
    torch.save(prefixed(net().state_dict(), prefix), tmp_path / "w.pt")
    told = assert_loaded(tmp_path / "w.pt", net())
    assert ("names without" in told) == (prefix[0] != "_" and prefix[:7] != "module.")


def test_a_prefix_that_only_the_network_has(tmp_path):
    torch.save(net().state_dict(), tmp_path / "w.pt")
    wrapped = nn.ModuleDict({"model": net(seed=1)})
    assert "names with 'model.'" in " ".join(load_into(wrapped, tmp_path / "w.pt"))
    assert torch.equal(wrapped["model"].conv.weight, net().conv.weight)


def test_what_belongs_to_the_training_alone_is_left_out_by_name(tmp_path):
    state = net().state_dict()
    extras = {"aux1.conv.weight": torch.ones(2), "AuxLogits.fc.bias": torch.ones(2), "conv.total_ops": torch.zeros(1)}
    torch.save({**state, **extras}, tmp_path / "w.pt")
    assert "left out aux1.conv.weight, AuxLogits.fc.bias, conv.total_ops" in assert_loaded(tmp_path / "w.pt", net())
    torch.save({**prefixed(state, "module."), "n_averaged": torch.tensor(3)}, tmp_path / "w.pt")
    assert "left out n_averaged" in assert_loaded(tmp_path / "w.pt", net())
    torch.save({**prefixed(state, "model."), "criterion.weight": torch.ones(3), "epoch": 3}, tmp_path / "w.pt")
    assert "left out epoch (int), criterion.weight" in assert_loaded(tmp_path / "w.pt", net())


def test_a_part_that_is_unknown_is_no_auxiliary(tmp_path):
    torch.save({**net().state_dict(), "neck.weight": torch.ones(2)}, tmp_path / "w.pt")
    assert "neck.weight (2,) is unknown to the network" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ">f4"])
def test_weights_as_numpy_arrays(dtype, tmp_path):
    source = net()
    arrays = {n: as_stored(t.numpy(), dtype) for n, t in state_of(source)}
    torch.save({"model": arrays}, tmp_path / "w.pt")
    module = net(seed=1)
    load_into(module, tmp_path / "w.pt")
    for name, tensor in state_of(source):
        assert torch.equal(module.state_dict()[name], torch.from_numpy(arrays[name].astype(tensor.numpy().dtype)))


def as_stored(array, dtype):
    return array.astype(dtype if array.dtype.kind == "f" else array.dtype, order="F")


def state_of(module):
    return list(module.state_dict().items())


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
    assert "is no regular file" in refusal(tmp_path)


@pytest.mark.parametrize("save", [torch.save, weights.save])
def test_torn_files(save, tmp_path):
    path = tmp_path / "w"
    save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-40])
    refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "net": {}}, "hold dict with 'epoch' (int), 'net' (dict) and no tensors by name; give a state dict"),
        ({1: torch.ones(1)}, "hold dict with 1 (Tensor) and no tensors by name"),
        ([torch.ones(1)], "hold list and no tensors by name"),
        ({"model": {}}, "hold dict with 'model' (dict) and no tensors by name"),
        ({"model": net(), "epoch": 1}, "hold the Python object torch.nn.modules.container.Sequential"),
    ],
)
def test_other_contents(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    assert message in refusal(tmp_path / "w.pt")


def test_remedies_fit_what_is_wrong(tmp_path):
    torch.save(net(classes=5).state_dict(), tmp_path / "w.pt")
    assert "with as many classes" in refusal(tmp_path / "w.pt")
    torch.save({"encoder": {"stem": torch.ones(2), "out": torch.ones(3)}}, tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert (
        "classes" not in message and "no name is in both: the network's are like conv.weight, the file's like stem" in message
    )
