import json
from functools import partial

import pytest
import torch
from networks import images
from torch import Tensor, nn

from compress.prune.groups import Cut
from compress.prune.history import History, replay
from compress.prune.saved import HISTORY, SOURCE, load_pruned, read_history, read_source, save_pruned
from nas import weights
from nas.errors import CorruptRun, InvalidSetting

NETWORK = {"network": "net", "width": 6}
GONE = History(("2",), (Cut("0", (0, 1, 3)),))
FILES = ["history.json", "model.safetensors", "source.json"]
recut = partial(replay, example=images(1, 4))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(x)


def build(source):
    """The block between the two layers, module 2, can go."""
    assert source["network"] == "net"
    width = source["width"]
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), Residual(width), nn.Linear(width, 2))


@pytest.fixture
def saved(tmp_path):
    """A pruned network and the folder that holds it."""
    module = recut(build(NETWORK), GONE)
    save_pruned(tmp_path / "net", module, NETWORK, GONE)
    return module, tmp_path / "net"


# -- there and back


def test_reloaded_is_saved(saved):
    module, folder = saved
    loaded = load_pruned(folder, build, recut)
    assert loaded.state_dict().keys() == module.state_dict().keys() == {f"{n}.{p}" for n in "03" for p in ("weight", "bias")}
    assert all(torch.equal(loaded.state_dict()[n], t) for n, t in module.state_dict().items())
    assert loaded[0].out_features == 3 and not loaded.training
    assert torch.equal(loaded(images(5, 4)), module(images(5, 4)))
    assert (read_source(folder), read_history(folder)) == (NETWORK, GONE)


def test_three_plain_files_and_nothing_else(saved):
    _, folder = saved
    assert sorted(p.name for p in folder.iterdir()) == FILES
    history = {"blocks": ["2"], "cuts": [{"group": "0", "units": [0, 1, 3]}]}
    assert json.loads((folder / HISTORY).read_text()) == history
    assert weights.load(folder / "model.safetensors")["0.weight"].shape == (3, 4)


def test_saving_again_replaces_all(saved):
    _, folder = saved
    again = build(NETWORK)
    (folder / ".writing-killed").mkdir()
    written = save_pruned(folder, again, NETWORK, History())
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in written) == FILES
    loaded = load_pruned(folder, build, recut)
    assert torch.equal(loaded[0].weight, again[0].weight) and torch.equal(loaded[2].linear.weight, again[2].linear.weight)


def test_a_source_that_is_no_json_leaves_the_old_files_alone(saved):
    module, folder = saved
    with pytest.raises(ValueError):
        save_pruned(folder, module, {"width": float("nan")}, History())
    assert sorted(p.name for p in folder.iterdir()) == FILES and read_history(folder) == GONE


def test_widths_before_the_cuts():
    history = History(cuts=(Cut("a", (1, 4)), Cut("b", (0,))))
    assert history.widths_before({"a": 3, "b": 7, "c": 2}) == {"a": 5, "b": 8, "c": 2}


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
        (HISTORY, "{}", "history.json' is {} and not `blocks` and `cuts` of a network"),
        (HISTORY, "[{]", "history.json' is not JSON"),
        (HISTORY, '[{"group": "0", "units": [0]}]', r"history.json' is \[{'group': '0', 'units': \[0\]}\] and not"),
        (HISTORY, '{"blocks": [1], "cuts": []}', "history.json' is .* and not"),
        (HISTORY, '{"blocks": [], "cuts": {}}', "history.json' is .* and not"),
        (HISTORY, '{"blocks": [], "cuts": [{"group": "0", "units": [1]}, {"group": "0"}]}', "history.json' is .* and not"),
        (HISTORY, '{"blocks": [], "cuts": [{"group": "0", "units": [true]}]}', "history.json' is .* and not"),
        (HISTORY, '{"blocks": [], "cuts": [{"group": "0", "units": [-1]}]}', "history.json' is .* and not"),
        (HISTORY, '{"blocks": ["2"], "cuts": [{"group": "0", "units": [0]}]}', r"does not fit the network.*0\.weight"),
        (
            HISTORY,
            '{"blocks": [], "cuts": [{"group": "0", "units": [0, 1, 3]}]}',
            r"does not fit the network.*2\.linear\.weight",
        ),
        ("model.safetensors", "short", "not safetensors data"),
    ],
)
def test_a_spoiled_file(name, content, message, saved):
    _, folder = saved
    (folder / name).write_text(content)
    with pytest.raises(CorruptRun, match=message):
        load_pruned(folder, build, recut)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (History(("9",)), "there is no block '9' to remove"),
        (History(("2",), (Cut("0", (6,)),)), r"group '0' has no units \[6\]"),
    ],
)
def test_a_history_of_another_network(history, message, saved):
    _, folder = saved
    (folder / HISTORY).write_text(json.dumps(history.to_json()))
    with pytest.raises(InvalidSetting, match=message):
        load_pruned(folder, build, recut)
