"""`nas verify` on delivered networks, whole and tampered with."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from own_network import QUICK, TINY
from typer.testing import CliRunner

from nas import weights
from nas.cli import verifying
from nas.cli.main import app


@pytest.fixture(scope="module")
def delivered(tmp_path_factory):
    """The run directory of a small pruning, and the folder that it was started in."""
    home = tmp_path_factory.mktemp("verify")
    (home / "tiny_net.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        args = ["prune", "python:tiny_net:tiny", "--budget", "50%", *QUICK, "--out", "run"]
        assert CliRunner().invoke(app, args).exit_code == 0
    return home


@pytest.fixture
def run(delivered, tmp_path, monkeypatch):
    """A copy of it that may be spoiled; times are left to the tests that are about them."""
    shutil.copytree(delivered, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verifying, "_bench", lambda found: None)
    return tmp_path / "run"


def verify(*args):
    return CliRunner().invoke(app, ["verify", *map(str, args)])


def test_a_delivered_network_holds_what_it_claims(run):
    result = verify("run", "--json")
    content = json.loads(result.stdout)
    assert result.exit_code == 0 and content["ok"], result.stderr
    names = {row["name"] for row in content["checks"]}
    assert {"onnx: same class", "macs as planned", "test accuracy"} <= names
    claimed = json.loads((run / "summary.json").read_text())["best"]["metrics"]
    assert {r["name"]: r["value"] for r in content["checks"]}["test accuracy"] == claimed["test_accuracy"]


def test_its_time_is_taken_beside_the_original(run, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr(verifying, "TIME_TOLERANCE", 100.0)  # how long it takes is not for tests to say
    result = verify("run", "--no-score", "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 0 and "of the original's time, side by side" in rows["latency in ms"]["detail"]
    assert not (run / ".original.onnx").exists()


def test_weights_that_were_changed_are_found(run):
    path = run / "best/model.safetensors"
    tensors = weights.load(path)
    tensors["0.weight"] = tensors["0.weight"] + torch.randn(tensors["0.weight"].shape)
    weights.save(tensors, path)
    result = verify("run", "--no-score")
    assert result.exit_code == 4 and "no longer holds what it claims" in result.stderr and "onnx:" in result.stderr
    assert "FAILED model.safetensors was changed" in result.stderr


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.onnx", "model.pt2", "source.json", "history.json", "architecture.json"]
)
def test_a_file_that_lost_a_byte_or_is_gone_is_found(run, name):
    path = run / "best" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    shortened = verify("run", "--no-score", "--json")
    path.unlink()
    gone = verify("run", "--no-score", "--json")
    for result, word in ((shortened, "was changed"), (gone, "is gone")):
        assert result.exit_code == 4 and f"{name} {word}" in result.stderr, result.stderr
        told = json.loads(result.stdout)
        assert not told["ok"] and f"{name} {word}" in [row["name"] for row in told["checks"] if not row["ok"]]


def test_claims_that_were_changed_are_found(run):
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    summary["best"]["metrics"] |= {"macs": 1, "test_accuracy": 1.0}
    path.write_text(json.dumps(summary))
    result = verify("run")
    assert result.exit_code == 4
    assert "FAILED macs as planned" in result.stderr and "FAILED test accuracy" in result.stderr


def test_a_budget_that_is_broken_is_told(run):
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    summary["budget"][0]["limit"] = 100.0
    path.write_text(json.dumps(summary))
    result = verify("run", "--no-score")
    assert result.exit_code == 4 and "BROKEN 50%" in result.stderr


def test_other_data_are_refused(run):
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["data"]["fingerprint"] = "0" * 12
    path.write_text(json.dumps(config))
    result = verify("run")
    assert result.exit_code == 2 and "has the fingerprint" in result.stderr and "--no-score" in result.stderr


def test_what_has_delivered_nothing_is_refused(run):
    (run / "summary.json").unlink()
    assert "has delivered nothing yet" in verify("run").stderr
    assert "is no run directory" in verify(Path("none")).stderr
