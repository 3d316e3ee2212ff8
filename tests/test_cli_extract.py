"""`nas extract`: any network of a run is delivered as the best one was."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from own_network import QUICK, TINY
from typer.testing import CliRunner

from compress.export import load_onnx
from nas.cli.main import app
from nas.cli.sources import reload
from nas.rundir import RunDir

FILES = {"architecture.json", "model.safetensors", "model.onnx", "model.pt2", "verify.json", "summary.json", "README.md"}
FILES |= {"predict.py", "labels.txt"}


def nas(*args):
    return CliRunner().invoke(app, list(map(str, args)))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small search, another one of its supernet, and a small sweep of prunings."""
    home = tmp_path_factory.mktemp("extract")
    rng, labels = np.random.default_rng(0), np.arange(150) % 3
    images = (rng.integers(0, 60, (150, 8, 8)) + labels[:, None, None] * 80).astype(np.uint8)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:60], "test_labels": labels[:60]}
    np.savez(home / "tiny.npz", **arrays)
    (home / "tiny_net.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        search = ["--budget", "300kFLOPs", "--epochs", "1", "--trials", "5", "--space", "resnet", "--data", "npz:tiny.npz"]
        assert nas("search", *search, "--finetune-epochs", "1", "--no-baseline", "--out", "search").exit_code == 0
        again = ["--budget", "250kFLOPs", "--supernet", "search", "--trials", "2"]
        assert nas("search", *again, "--out", "again").exit_code == 0
        assert nas("prune", "python:tiny_net:tiny", "--sweep", "40,70%", *QUICK, "--out", "prune").exit_code == 0
    return home


@pytest.fixture
def folder(home, tmp_path, monkeypatch):
    """A copy of it that may be spoiled."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def summary_of(run):
    return json.loads((Path(run) / "summary.json").read_text())


def other_than_best(run):
    """A network that the run evaluated and did not deliver."""
    best = summary_of(run)["best"]["key"]
    return next(r for r in RunDir.read(Path(run)).trials()[1:] if r["state"] == "complete" and r["key"] != best)


@pytest.mark.parametrize("run", ["search", "again", "prune"])
def test_the_best_network_is_extracted_as_it_was_delivered(folder, run):
    best = summary_of(run)["best"]
    result = nas("extract", run, best["key"], "--json")
    assert result.exit_code == 0, result.stderr
    found, out = json.loads(result.stdout), Path(run) / "extracted" / best["key"]
    assert (out / "model.safetensors").read_bytes() == (Path(run) / "best/model.safetensors").read_bytes()
    assert (out / "architecture.json").read_text() == (Path(run) / "best/architecture.json").read_text()
    assert found["best"]["metrics"] | {"latency_ms": 0} == best["metrics"] | {"latency_ms": 0}
    assert found["folder"] == str(out) and found["verified"]


@pytest.mark.parametrize("run", ["search", "prune"])
def test_another_network_is_delivered_whole(folder, run):
    record = other_than_best(run)
    result = nas("extract", run, record["key"][:8])
    assert result.exit_code == 0, result.stderr
    out = Path(run) / "extracted" / record["key"]
    assert {p.name for p in out.iterdir()} - {"source.json", "history.json", "front.svg"} == FILES
    found = summary_of(out)
    metrics = found["best"]["metrics"]
    assert found["command"] == "extract" and found["run"] == run and found["best"]["key"] == record["key"]
    assert metrics["macs"] == record["cost"]["macs"]["value"] and 0 <= metrics["test_accuracy"] <= 1
    assert metrics["size_bytes"] == (out / "model.safetensors").stat().st_size
    assert json.loads((out / "verify.json").read_text())["ok"]
    card = (out / "README.md").read_text()
    assert f"# {record['key']}" in card and "&& " in card
    assert ("(front.svg)" in card) == (out / "front.svg").is_file()
    assert found["front"] == summary_of(run)["front"]
    assert summary_of(run)["best"]["key"] != record["key"] and (Path(run) / "best/model.onnx").exists()


def test_a_pruned_network_answers_as_its_file(folder):
    record = other_than_best("prune")
    assert nas("extract", "prune", record["key"], "--out", "out").exit_code == 0
    module, images = reload(Path("out")), torch.randn(5, 1, 8, 8)
    assert torch.allclose(module(images), load_onnx(Path("out/model.onnx"))(images), atol=1e-4)
    # the original's test accuracy is that of the run
    original, before = (summary_of(path)["original"]["metrics"] for path in ("out", "prune"))
    assert original["test_accuracy"] == before["test_accuracy"] and not (Path("prune") / "extracted").exists()


def test_the_original_of_a_pruning_is_on_its_front(folder):
    record = RunDir.read(Path("prune")).trials()[0]
    result = nas("extract", "prune", record["key"], "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["best"]["metrics"]["macs"] == found["original"]["metrics"]["macs"]
    assert found["best"]["metrics"]["test_accuracy"] == summary_of("prune")["original"]["metrics"]["test_accuracy"]


def test_a_network_that_breaks_the_budget_is_said_to(folder):
    config = json.loads(Path("search/config.json").read_text())
    config["options"]["budget"] = ["300kFLOPs", "1kB"]
    Path("search/config.json").write_text(json.dumps(config))
    result = nas("extract", "search", other_than_best("search")["key"])
    assert result.exit_code == 4 and "1kB (" in result.stderr and "1kB BROKEN" in result.stderr


def test_a_run_that_goes_on_is_extracted_from_with_out_alone(folder):
    key = other_than_best("search")["key"]
    with RunDir.open(Path("search")):
        locked = nas("extract", "search", key)
        assert locked.exit_code == 2 and "is in use by process" in locked.stderr
        assert nas("extract", "search", key, "--out", "out").exit_code == 0
    again = nas("extract", "search", key, "--out", "out")
    assert again.exit_code == 0, again.stderr


def test_keys_that_are_not_there(folder):
    keys = [record["key"] for record in RunDir.read(Path("search")).trials()]
    near = keys[0][:-1] + ("0" if keys[0][-1] != "0" else "1")
    result = nas("extract", "search", near)
    assert result.exit_code == 2 and f"has no trial {near!r} among its {len(keys)}; the nearest are {keys[0]}" in result.stderr
    with (Path("search") / "trials.jsonl").open("a") as file:
        for number, state in ((5, "infeasible"), (6, "failed")):
            row = {**RunDir.read(Path("search")).trials()[0], "number": number, "key": f"x{state}", "state": state}
            file.write(json.dumps({**row, "error": "too dear"}) + "\n")
    assert "network xinfeasible is infeasible (too dear)" in nas("extract", "search", "xi").stderr
    assert "'x' is the beginning of 2 keys of 'search' (" in nas("extract", "search", "x").stderr
    # RUN:KEY of other commands finds its network in the same way
    costed = nas("cost", f"search:{near}")
    assert costed.exit_code == 2 and f"the nearest are {keys[0]}" in costed.stderr


def spoiled(change):
    config = json.loads(Path("search/config.json").read_text())
    change(config)
    Path("search/config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda: shutil.rmtree("search/checkpoint"), "the supernet of search is trained for 0 of"),
        (lambda: Path("search/trials.jsonl").unlink(), "none of its 0 trials was evaluated; let the run go on"),
        (lambda: Path("search/config.json").unlink(), "'search' is no run directory"),
        (lambda: spoiled(lambda c: c["data"].update(fingerprint="f00d")), "the data of search changed since it was started"),
        (lambda: spoiled(lambda c: c.update(command="train")), "is a run of nas train, which has no networks to choose from"),
    ],
)
def test_what_cannot_be_extracted_from(folder, change, expected):
    key = other_than_best("search")["key"]
    change()
    result = nas("extract", "search", key)
    assert result.exit_code == 2 and expected in result.stderr, result.stderr
    assert not Path("search/extracted").exists()


def test_a_folder_that_holds_something_else_is_refused(folder):
    key = other_than_best("search")["key"]
    assert "holds files (best); choose another --out" in nas("extract", "search", key, "--out", "search").stderr
    assert "is a file; choose another --out" in nas("extract", "search", key, "--out", "tiny.npz").stderr
