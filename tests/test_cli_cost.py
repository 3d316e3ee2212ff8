"""`nas cost`: its numbers are those of the plan, whatever form the network is given in."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
import torchvision
from networks import space_for
from typer.testing import CliRunner

from compress.export import write_onnx
from nas.cli.main import app
from nas.cli.sources import module_of, read_network
from nas.cost.counting import count
from nas.cost.onnx_plan import onnx_plan
from nas.cost.recount import recount
from nas.cost.trace import trace
from nas.errors import MissingPackage
from nas.latency.foreign import FBNET_SETTINGS, foreign
from nas.latency.predictor import Predictor
from nas.latency.table import Entry, LatencyTable, write_table
from nas.latency.target import Target
from nas.latency.units import units
from nas.onnx_io import to_bytes
from nas.onnx_values import Graph, Node
from nas.rundir import RunDir
from nas.seeding import numpy_rng
from search_spaces.fbnet import FBNetSpace

SPACE = space_for("resnet")
BEST, OTHER = SPACE.smallest(), SPACE.sample(numpy_rng(0, "nas cost"))


def cost(*args):
    return CliRunner().invoke(app, ["cost", *args])


def answer(*args):
    result = cost(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["networks"]


def error_of(*args):
    result = cost(*args)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("nas: error: ")


def definition(space):
    return {"name": space.name, "version": space.version, "settings": space.settings}


def described(space, arch):
    return json.dumps({**arch.to_json(), "definition": definition(space)})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder, without tables of this machine."""
    monkeypatch.setenv("NETCARVER_TABLES", str(tmp_path / "tables"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder):
    """A run that has tried two networks and delivered the first."""
    with RunDir.create("search", {"space": definition(SPACE)}, out=folder / "run") as made:
        for arch in (BEST, OTHER):
            made.append_trial({"key": arch.key, "architecture": arch.to_json()})
        made.write_text("best/architecture.json", described(SPACE, BEST))
    return folder / "run"


def save_table(path, plans, ms=lambda unit: unit.weights / 1000):
    entries = {unit.key: Entry(ms(unit)) for plan in plans for unit in units(plan)}
    table = LatencyTable(Target("Toy", "onnxruntime", "1.0"), entries)
    write_table(table, path)
    return table


# -- numbers


def test_a_torchvision_network_costs_what_its_trace_and_fvcore_count():
    (row,) = answer("torchvision:resnet18")
    assert row["metrics"]["macs"] == 1_814_073_344
    with torch.device("meta"):
        expected = count(trace(torchvision.models.resnet18(), torch.zeros(1, 3, 224, 224)))
    assert row["metrics"] == expected.values() and row["uncounted"] == [] and row["input"] == [3, 224, 224]
    (small,) = answer("torchvision:resnet18", "--shape", "3x64x48")
    counted = recount(torchvision.models.resnet18(), torch.zeros(1, 3, 64, 48))
    assert {n: small["metrics"][n] for n in ("macs", "params", "activations")} == {
        n: counted.value(n) for n in ("macs", "params", "activations")
    }


def test_a_network_whose_constructor_needs_numbers():
    counted = recount(torchvision.models.regnet_x_400mf(), torch.zeros(1, 3, 32, 32))
    (row,) = answer("torchvision:regnet_x_400mf", "--shape", "3x32x32", "--no-by-layer")
    assert (row["metrics"]["macs"], row["metrics"]["params"]) == (counted.value("macs"), counted.value("params"))


def test_a_timm_network():
    pytest.importorskip("timm")
    (row,) = answer("timm:mobilenetv3_small_050", "--shape", "3x32x32")
    counted = recount(module_of("timm:mobilenetv3_small_050"), torch.zeros(1, 3, 32, 32))
    assert row["uncounted"] == []
    assert {n: row["metrics"][n] for n in ("macs", "params")} == {n: counted.value(n) for n in ("macs", "params")}


def test_layers_add_up():
    (row,) = answer("torchvision:mobilenet_v3_small")
    layers = row["layers"]
    assert sum(x["macs"] for x in layers) == row["metrics"]["macs"]
    assert sum(x["params"] for x in layers) == row["metrics"]["params"]
    assert sum(x["share"] for x in layers) == pytest.approx(1)
    assert layers[0]["in"] == [3, 224, 224] and layers[0]["out"] == [16, 112, 112] and layers[0]["act"] == "hardswish"
    assert "layers" not in answer("torchvision:mobilenet_v3_small", "--no-by-layer")[0]


def test_architectures_by_run_by_trial_and_by_file(run):
    texts = ["run", f"run:{OTHER.key}", "run/best/architecture.json"]
    first, second, third = answer(*texts)
    assert [row["name"] for row in (first, second, third)] == texts
    assert first["metrics"] == third["metrics"] == count(SPACE.plan(BEST)).values()
    assert second["metrics"] == count(SPACE.plan(OTHER)).values()
    assert first["input"] == [1, 8, 8]


def test_modules_of_architectures_are_their_networks(run):
    module = module_of(f"run:{OTHER.key}").eval()
    assert trace(module, torch.zeros(1, 1, 8, 8)).canonical() == SPACE.plan(OTHER).canonical()
    assert isinstance(module_of("torchvision:alexnet"), torchvision.models.AlexNet)


def test_an_onnx_file(folder):
    write_onnx(SPACE.network(BEST).eval(), torch.zeros(1, 1, 8, 8), folder / "model.onnx")
    (row,) = answer("model.onnx")
    assert row["metrics"] == count(onnx_plan(folder / "model.onnx")).values()
    assert row["metrics"]["macs"] == count(SPACE.plan(BEST)).values()["macs"]


def test_ratios_are_to_the_first(run):
    first, second = answer("run", f"run:{OTHER.key}", "--compare", "--no-by-layer")
    assert set(first["ratios"].values()) == {1.0}
    assert second["ratios"]["macs"] == second["metrics"]["macs"] / first["metrics"]["macs"]


# -- latency


def test_latency_is_what_the_table_predicts(run):
    table = save_table(Path("t.csv"), [SPACE.plan(BEST)])
    (row,) = answer("run", "--table", "t.csv")
    expected = Predictor(table).predict(SPACE.plan(BEST)).latency
    assert (
        row["metrics"]["latency_ms"] == expected.value == pytest.approx(sum(u.weights for u in units(SPACE.plan(BEST))) / 1e3)
    )
    assert row["provenance"]["latency_ms"]["context"] == expected.context and "Toy" in expected.context
    assert row["units"] == {"missing": [], "interpolated": []}
    times = {x["unit"]: x["unit_ms"] for x in row["layers"]}
    assert times == {unit.key: table.entries[unit.key].latency_ms for unit in units(SPACE.plan(BEST))}
    assert "latency " in cost("run", "--table", "t.csv").stdout


def test_units_that_the_table_lacks_are_named(run):
    save_table(Path("t.csv"), [SPACE.plan(BEST)])
    first, second = answer("run", f"run:{OTHER.key}", "--table", "t.csv")
    known = {unit.key for unit in units(SPACE.plan(BEST))}
    missing = [unit.key for unit in units(SPACE.plan(OTHER)) if unit.key not in known]
    assert "latency_ms" not in second["metrics"] and second["units"]["missing"] == list(dict.fromkeys(missing))
    shown = cost(f"run:{OTHER.key}", "--table", "t.csv").stdout
    assert f"latency unknown: the table lacks {len(set(missing))} units" in shown and missing[0] in shown
    assert re.search(r"unknown$", cost("run", f"run:{OTHER.key}", "--table", "t.csv", "--compare").stdout, re.MULTILINE)


def test_interpolated_units_are_marked(folder):
    wide = {width: conv_graph(width) for width in (8, 12, 16)}
    for width, graph in wide.items():
        (folder / f"{width}.onnx").write_bytes(to_bytes(graph))
    save_table(Path("t.csv"), [onnx_plan(folder / f"{width}.onnx") for width in (8, 16)])
    (row,) = answer("12.onnx", "--table", "t.csv")
    assert row["units"]["interpolated"] == ["c3 8x8 | conv 3x3 c12 relu"]
    assert row["metrics"]["latency_ms"] == pytest.approx(12 * 27 / 1000)
    assert "~0.3240" in cost("12.onnx", "--table", "t.csv").stdout


def conv_graph(width):
    nodes = (Node("Conv", ("x", "w"), ("c",), {"pads": (1, 1, 1, 1)}), Node("Relu", ("c",), ("y",)))
    return Graph(nodes, {"w": np.ones((width, 3, 3, 3), np.float32)}, {"x": (1, 3, 8, 8)}, ("y",))


def test_tables_are_found_by_name(run):
    save_table(run.parent / "tables" / "toy.csv", [SPACE.plan(BEST)])
    assert "latency_ms" in answer("run", "--table", "toy")[0]["metrics"]
    assert "neither a file nor one of pixel3, raspi4" in error_of("run", "--table", "none")
    assert "toy" in error_of("run", "--table", "none")


def test_a_published_table_of_a_space(folder):
    space = FBNetSpace(classes=100, **FBNET_SETTINGS)
    (folder / "a.json").write_text(described(space, space.largest()))
    metrics = answer("a.json", "--table", "pixel3")[0]["metrics"]
    assert metrics["latency_ms@pixel3"] == foreign("pixel3").latency(space, space.largest()).value
    assert "latency on pixel3" in cost("a.json", "--table", "pixel3", "--no-by-layer").stdout
    assert "which torchvision:resnet18 is not" in error_of("torchvision:resnet18", "--table", "pixel3")


# -- text


def test_the_sheet_shows_layers_and_sums(run):
    lines = cost("run").stdout.splitlines()
    assert lines[0] == "run, one image of 1x8x8"
    head = lines[2]
    assert head.split() == ["layer", "operation", "in", "out", "multiply-adds", "share", "parameters"]
    stem = next(line for line in lines if line.startswith("stem "))
    layer = SPACE.plan(BEST).layers[0]
    assert stem.split()[1:3] == ["conv", "3x3" + ("/2" if layer.stride == (2, 2) else "")]
    assert " relu " in stem and f"{count(replace(SPACE.plan(BEST), layers=(layer,))).values()['macs']:,}" in stem
    macs = count(SPACE.plan(BEST)).values()["macs"]
    assert re.search(rf"^multiply-adds +[\d.]+ kFLOPs +{macs:,}$", "\n".join(lines), re.MULTILINE)
    assert all(line == line.rstrip() for line in lines)
    assert "stem" not in cost("run", "--no-by-layer").stdout


def test_the_comparison_has_a_row_a_network(run):
    lines = cost("run", f"run:{OTHER.key}", "--compare").stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["network", "run", f"run:{OTHER.key}"]
    ratio = count(SPACE.plan(OTHER)).values()["macs"] / count(SPACE.plan(BEST)).values()["macs"]
    assert f"{ratio:.3g}x" in lines[2]


def test_what_cannot_be_counted_is_named(folder):
    graph = Graph((Node("Softsign", ("x",), ("y",)),), {}, {"x": (1, 3, 8, 8)}, ("y",))
    (folder / "odd.onnx").write_bytes(to_bytes(graph))
    assert answer("odd.onnx")[0]["uncounted"] == ["Softsign (y)"]
    assert "not counted, so the sums are lower bounds: Softsign (y)" in cost("odd.onnx").stdout


def test_help_shows_examples():
    assert "  nas cost torchvision:mobilenet_v2" in cost("--help").stdout


# -- what a user may get wrong


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["torchvision:resnet19"], "torchvision has no model 'resnet19'; nearest: resnet18"),
        (["resnet-18"], "network 'resnet-18' was not understood; expected torchvision:NAME"),
        (["best/model.pt2"], "'best/model.pt2' was not understood (give the model.onnx beside it)"),
        (["none.onnx"], "cannot read ONNX file 'none.onnx': No such file"),
        (["none.json"], "cannot read 'none.json': No such file"),
        (["run:0000"], "has no trial '0000' among its 2"),
        (["run/config.json"], "'run/config.json' is spoiled: Expected `str`, got `object` at $.space"),
        (["run/best"], "'run/best' is no run directory"),
        (["torchvision:resnet18", "--shape", "3x224"], "--shape '3x224' was not understood"),
        (["run", "--shape", "3x8x8"], "--shape 3x8x8: run is a network for images of 1x8x8; drop --shape"),
        (["torchvision:resnet18", "--shape", "1x8x8"], "ResNet cannot be traced on an input of shape (1, 1, 8, 8)"),
        (["run", "--table", "run/config.json"], "is no latency table"),
    ],
)
def test_bad_input_is_one_line(run, args, expected):
    assert expected in error_of(*args)


def test_architectures_that_do_not_fit_their_space_are_refused(folder):
    content = json.loads(described(SPACE, BEST))
    for changes, expected in [
        ({"definition": {**content["definition"], "name": "vgg"}}, "space 'vgg' version 1 is not known"),
        ({"definition": {**content["definition"], "settings": {"depths": 3}}}, "settings that its space does not know"),
        ({"space": "resnet-1-ffffff"}, "architecture of space 'resnet-1-ffffff' given to space"),
    ]:
        (folder / "a.json").write_text(json.dumps({**content, **changes}))
        assert expected in error_of("a.json")
    (folder / "a.json").write_text("{")
    assert "'a.json' is not JSON" in error_of("a.json")


def test_timm_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackage, match=r"timm:resnet18 needs timm; install it with: pip install 'netcarver\[timm\]'"):
        read_network("timm:resnet18")


def test_untraceable_modules_say_so(monkeypatch):
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    monkeypatch.setattr("nas.cli.sources.module_of", lambda text: Branching())
    assert "Branching cannot be traced" in error_of("torchvision:resnet18")
