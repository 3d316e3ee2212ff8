import json

import pytest
import torch
from torch import nn

from compress.prune.groups import Cut
from compress.prune.saved import HISTORY, SOURCE, load_pruned, read_history, read_source, save_pruned
from nas import weights
from nas.errors import CorruptRun, InvalidSetting

NETWORK = {"network": "pair", "width": 6}
CUTS = (Cut("first", (0, 3)), Cut("first", (1,)), Cut("first", ()))
FILES = ["history.json", "model.safetensors", "source.json"]


def build(source):
    assert source["network"] == "pair"
    return nn.Sequential(nn.Linear(4, source["width"]), nn.ReLU(), nn.Linear(source["width"], 2))


def recut(module, cuts):
    """Cut between the two layers, one cut after the other."""
    first, act, second = module
    for cut in cuts:
        kept = [u for u in range(first.out_features) if u not in cut.units]
        narrow = nn.Linear(4, len(kept)), nn.Linear(len(kept), 2)
        for new, tensors in zip(
            narrow, ((first.weight[kept], first.bias[kept]), (second.weight[:, kept], second.bias)), strict=True
        ):
            new.load_state_dict({"weight": tensors[0].detach(), "bias": tensors[1].detach()})
        first, second = narrow
    return nn.Sequential(first, act, second)


@pytest.fixture
def saved(tmp_path):
    """A pruned network and the folder that holds it."""
    module = recut(build(NETWORK), CUTS)
    save_pruned(tmp_path / "net", module, NETWORK, CUTS)
    return module, tmp_path / "net"


# -- there and back


def test_reloaded_is_saved(saved):
    module, folder = saved
    loaded = load_pruned(folder, build, recut)
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[n], t) for n, t in module.state_dict().items())
    assert loaded[0].out_features == 3 and not loaded.training
    assert (read_source(folder), read_history(folder)) == (NETWORK, CUTS)


def test_three_plain_files_and_nothing_else(saved):
    _, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == FILES
    assert json.loads((folder / HISTORY).read_text())[0] == {"group": "first", "units": [0, 3]}
    assert weights.load(folder / "model.safetensors")["0.weight"].shape == (3, 4)


def test_saving_again_replaces_all(saved):
    _, folder = saved
    again = build(NETWORK)
    (folder / ".writing-killed").mkdir()
    written = save_pruned(folder, again, NETWORK, ())
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in written) == FILES
    assert torch.equal(load_pruned(folder, build, recut)[0].weight, again[0].weight)


def test_a_source_that_is_no_json_leaves_the_old_files_alone(saved):
    module, folder = saved
    with pytest.raises(ValueError):
        save_pruned(folder, module, {"width": float("nan")}, ())
    assert sorted(p.name for p in folder.iterdir()) == FILES and read_history(folder) == CUTS


# -- what is not whole


def test_a_folder_without_a_pruned_network(tmp_path):
    with pytest.raises(InvalidSetting, match="holds no pruned network, for it has no source.json"):
        load_pruned(tmp_path, build, recut)


@pytest.mark.parametrize("name", ["history.json", "model.safetensors"])
def test_a_missing_file(name, saved):
    _, folder = saved
    (folder / name).unlink()
    with pytest.raises(CorruptRun, match=f"{name}' does not exist"):
        load_pruned(folder, build, recut)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (SOURCE, "[1]", "source.json' is list and no JSON object"),
        (SOURCE, "{", "source.json' is not JSON"),
        (HISTORY, "{}", "history.json' is dict and no list of cuts"),
        (HISTORY, "[{]", "history.json' is not JSON"),
        (HISTORY, '[{"group": "first", "units": [1]}, {"group": "first"}]', "cut 2 is {'group': 'first'} and not"),
        (HISTORY, '[{"group": "first", "units": [true]}]', "cut 1 is"),
        (HISTORY, '[{"group": "first", "units": [-1]}]', "cut 1 is"),
        (HISTORY, '[{"group": "first", "units": [0]}]', r"does not fit the network.*0\.weight"),
        ("model.safetensors", "short", "not safetensors data"),
    ],
)
def test_a_spoiled_file(name, content, message, saved):
    _, folder = saved
    (folder / name).write_text(content)
    with pytest.raises(CorruptRun, match=message):
        load_pruned(folder, build, recut)
