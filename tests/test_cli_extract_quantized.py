"""`nas extract` from `nas quantize` and `nas compress`: any stage of a quantization, any network of any pass."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from own_network import TINY
from typer.testing import CliRunner

from compress.export import load_onnx
from nas.cli.main import app
from nas.cli.quantized import read_quantized
from nas.cli.sources import module_of, reload
from nas.report.contents import read_contents
from nas.rundir import RunDir

# the passes of a chain are runs of their own commands
PRUNE, QUANTIZE = "compress/passes/1-prune", "compress/passes/2-quantize"
RECIPE = """
network = "python:tiny_net:tiny"
weights = "weights.pt"
data = "digits"
threads = 1
[[pass]]
name = "prune"
budget = "70%"
finetune_epochs = 0
round_to = 1
[[pass]]
name = "quantize"
method = "qat"
finetune_epochs = 1
calibration = "min-max"
images = 64
keep = ["first=8"]
"""


def nas(*args):
    return CliRunner().invoke(app, list(map(str, args)))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a chain of two passes, a pruning and a quantization that is trained on."""
    home = tmp_path_factory.mktemp("extract")
    (home / "tiny_net.py").write_text(TINY)
    (home / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        torch.manual_seed(0)
        torch.save(module_of("python:tiny_net:tiny").state_dict(), "weights.pt")
        assert nas("compress", "--recipe", "recipe.toml", "--out", "compress").exit_code == 0
    return home


@pytest.fixture
def folder(home, tmp_path, monkeypatch):
    """A copy of it that may be spoiled."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def summary_of(run):
    return json.loads((Path(run) / "summary.json").read_text())


def trials_of(run):
    return RunDir.read(Path(run)).trials()


def untimed(metrics):
    return {name: value for name, value in metrics.items() if name != "latency_ms"}


def extracted(*args):
    result = nas("extract", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_the_best_network_is_extracted_as_it_was_delivered(folder):
    run = summary_of(QUANTIZE)
    found = extracted(QUANTIZE, run["best"]["key"])
    out = Path(QUANTIZE) / "extracted" / run["best"]["key"]
    for name in ("model.safetensors", "model.onnx", "architecture.json", "quantization.json"):
        assert (out / name).read_bytes() == (Path(QUANTIZE) / "best" / name).read_bytes()
    assert untimed(found["best"]["metrics"]) == untimed(run["best"]["metrics"])
    assert untimed(found["original"]["metrics"]) == untimed(run["original"]["metrics"])
    assert found["quantization"]["layers"] == run["quantization"]["layers"]
    card = (out / "README.md").read_text()
    assert "quantized from compress/passes/1-prune" in card and "(front.svg)" in card and (out / "front.svg").is_file()


def test_another_stage_is_the_network_that_was_kept(folder):
    best = summary_of(QUANTIZE)["best"]["key"]
    record = next(r for r in trials_of(QUANTIZE)[1:] if r["key"] != best)
    found = extracted(QUANTIZE, record["key"][:6], "--out", "out")
    scores = found["best"]["metrics"]
    assert {name: scores[name] for name in record["scores"]} == record["scores"] and found["verified"]
    assert scores["size_bytes"] == Path("out/model.onnx").stat().st_size and not (Path(QUANTIZE) / "extracted").exists()
    quantized, images = read_quantized(Path("out")), torch.rand(8, 1, 8, 8)
    assert torch.allclose(quantized.module()(images), load_onnx(Path("out/model.onnx"))(images), atol=1e-3)


def test_the_original_is_handed_over_in_floating_point(folder):
    record = trials_of(QUANTIZE)[0]
    found = extracted(QUANTIZE, record["key"], "--out", "out")
    module, images = reload(Path(PRUNE) / "best"), torch.rand(8, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(module(images), load_onnx(Path("out/model.onnx"))(images), atol=1e-5)
    before = summary_of(QUANTIZE)["original"]["metrics"]
    assert found["best"]["metrics"]["test_accuracy"] == before["test_accuracy"]
    assert found["best"]["metrics"]["params"] == before["params"]
    checks = {row["name"]: row for row in json.loads(Path("out/verify.json").read_text())["checks"]}
    assert "at most 0.001 of" in checks["onnx: largest logit difference"]["detail"]
    card = Path("out/README.md").read_text()
    assert "handed over unchanged from compress/passes/1-prune" in card and "quantization" not in found


def test_a_network_of_any_pass_of_a_chain(folder):
    first = Path(PRUNE)
    pruned, rounded = trials_of(PRUNE)[1]["key"], summary_of(QUANTIZE)["best"]["key"]
    found = extracted("compress", pruned[:6])
    assert found["folder"] == f"compress/extracted/{pruned}" and found["run"] == "compress"
    assert found["front"] == summary_of("compress")["front"]
    images, weights = torch.rand(8, 1, 8, 8), (first / "best/model.safetensors").read_bytes()
    assert (Path(found["folder"]) / "model.safetensors").read_bytes() == weights
    with torch.no_grad():
        answers = reload(Path(found["folder"]))(images)
    assert torch.allclose(answers, load_onnx(first / "best/model.onnx")(images), atol=1e-4)
    found = extracted("compress", rounded)
    assert (Path(found["folder"]) / "model.onnx").read_bytes() == Path("compress/best/model.onnx").read_bytes()
    assert "(front.svg)" in (Path(found["folder"]) / "README.md").read_text()


def test_keys_of_a_chain_are_those_of_all_passes(folder):
    keys = [record["key"] for run in (PRUNE, QUANTIZE) for record in trials_of(run)]
    near = keys[-1][:-1] + ("0" if keys[-1][-1] != "0" else "1")
    result = nas("extract", "compress", near)
    assert result.exit_code == 2
    assert f"'compress' has no trial {near!r} among its {len(keys)}; the nearest are {keys[-1]}" in result.stderr
    shutil.rmtree("compress/passes")
    assert "none of its 0 trials was evaluated" in nas("extract", "compress", near).stderr


def test_the_page_names_the_command_and_tells_the_layers_of_a_chain(folder):
    Path("compress/layers.json").unlink()
    assert nas("report", "compress").exit_code == 0
    assert '"extract":"nas extract compress"' in Path("compress/report.html").read_text().replace('": "', '":"')
    layers = json.loads(Path("compress/layers.json").read_text())
    original, pruned = (json.loads((Path(run) / "layers.json").read_text()) for run in (PRUNE, QUANTIZE))
    assert layers["networks"]["reference"] == original["networks"]["reference"]
    assert layers["networks"]["chosen"] == pruned["networks"]["chosen"] != original["networks"]["reference"]


def test_the_page_of_a_chain_that_was_stopped_shows_its_last_pass(folder):
    for name in ("summary.json", "layers.json"):
        (Path("compress") / name).unlink()
    lines = Path("compress/passes.jsonl").read_text().splitlines(keepends=True)
    Path("compress/passes.jsonl").write_text("".join(lines[:2]))
    assert nas("report", "compress").exit_code == 0
    found = read_contents(RunDir.read(Path("compress")))
    best = summary_of(PRUNE)["best"]
    assert found.config["data"] == RunDir.read(Path(PRUNE)).config["data"] and "int8" in found.target
    assert [n.key for n in found.front] == [trials_of(PRUNE)[0]["key"], best["key"]] and found.best.key == best["key"]
    assert not found.finished and found.taken["latency_ms"]["method"] == "measured"
    assert "the network of its last finished pass is shown" in Path("compress/report.md").read_text()
    Path("compress/passes.jsonl").write_text("")
    result = nas("report", "compress")
    assert result.exit_code == 2 and "'compress' has nothing to report" in result.stderr
