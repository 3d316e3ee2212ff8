"""`nas prune` as a user runs it: on digits, with a small network of the user's own."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from own_network import QUICK, TINY
from torch import nn
from typer.testing import CliRunner

from compress.export import load_onnx
from nas.cli.main import app
from nas.cli.pruning import finetuning
from nas.cli.pruning.flow import announce
from nas.cli.running import was_busy
from nas.cli.sources import module_of, reload, tidied
from nas.cost.measure import BUSY
from nas.rundir import RunDir

COMMON = ("python:tiny_net:tiny", "--budget", "50%", *QUICK)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a network of the user's own."""
    (tmp_path / "tiny_net.py").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prune(*args):
    return CliRunner().invoke(app, ["prune", *map(str, args)])


def done(*args):
    result = prune(*args)
    assert result.exit_code == 0, result.stderr
    return result


def trials(path):
    """All that two equal runs agree on: neither times nor seconds."""
    rows = RunDir.read(Path(path)).trials()
    for row in rows:
        del row["seconds"], row["cost"]["latency_ms"]
    return rows


def test_a_pruned_network_is_delivered(folder):
    result = done(*COMMON, "--out", "run", "--json")
    summary = json.loads(result.stdout)
    best, original = summary["best"]["metrics"], summary["original"]["metrics"]
    assert summary["verified"] and summary["budget"][0]["ok"]
    assert 0.45 * original["macs"] <= best["macs"] <= 0.5 * original["macs"]
    assert {"test_accuracy", "val_accuracy", "latency_ms"} <= set(best) & set(original)
    files = {p.name for p in Path("run/best").iterdir()}
    assert {"source.json", "history.json", "model.safetensors", "model.onnx", "model.pt2", "verify.json", "README.md"} <= files
    module, images = reload(Path("run/best")), torch.randn(5, 1, 8, 8)
    assert torch.allclose(module(images), load_onnx(Path("run/best/model.onnx"))(images), atol=1e-4)
    # counted again from the run directory alone
    costed = CliRunner().invoke(app, ["cost", "run", "--json"])
    assert costed.exit_code == 0, costed.stderr
    assert json.loads(costed.stdout)["networks"][0]["metrics"]["macs"] == best["macs"]
    page, card = Path("run/report.html").read_text(), Path("run/best/README.md").read_text()
    assert "Channels that were kept" in page and "fine-tuned" in page
    assert "pruned from python:tiny_net:tiny by netcarver" in card


def test_a_run_that_was_killed_ends_as_one_that_was_not(folder, monkeypatch):
    sweep = ("python:tiny_net:tiny", "--sweep", "40,70%", *QUICK)
    done(*sweep, "--out", "whole")
    fit, calls = finetuning.fit, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        fit(*args)

    monkeypatch.setattr(finetuning, "fit", killed)
    stopped = prune(*sweep, "--out", "parts")
    assert stopped.exit_code == 130 and "resume with: nas prune --resume --out parts" in stopped.stderr
    monkeypatch.setattr(finetuning, "fit", fit)
    done("--resume", "--out", "parts")
    assert trials("parts") == trials("whole")
    ours, theirs = (reload(Path(run) / "best").state_dict() for run in ("parts", "whole"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_fine_tuning_follows_the_features_of_the_blocks_that_are_left(folder, monkeypatch):
    torch.manual_seed(0)
    torch.save(module_of("python:tiny_net:residual").state_dict(), "weights.pt")
    matched, seen = finetuning.matched, []

    def watched(plain, student, teacher, places, weight):
        seen.append((places, weight))
        return matched(plain, student, teacher, places, weight)

    monkeypatch.setattr(finetuning, "matched", watched)
    network = ("python:tiny_net:residual", "--weights", "weights.pt", *QUICK)
    done(*network, "--budget", "50%", "--allocation", "uniform", "--out", "run")
    (place,), weight = seen[0]
    assert place.part == "3" and 0 < len(place.kept) < 16 and weight == finetuning.FEATURES
    done(*network, "--method", "grow", "--grow-epochs", "1", "--budget", "50%", "--out", "grown")
    assert seen[1][0] == ()


def test_a_sweep_is_a_front(folder):
    summary = json.loads(done("python:tiny_net:tiny", "--sweep", "30,50,70%", *QUICK, "--out", "run", "--json").stdout)
    rows = RunDir.read(Path("run")).trials()
    macs = [row["cost"]["macs"]["value"] for row in rows]
    assert len(rows) == 4 and all(m <= share * macs[0] for m, share in zip(macs[1:], (0.3, 0.5, 0.7), strict=True))
    front = [(n["metrics"]["macs"], n["metrics"]["val_accuracy"]) for n in summary["front"]]
    assert front == sorted(front) and all(a[1] < b[1] for a, b in zip(front, front[1:], strict=False))


def test_a_pruned_network_is_pruned_again(folder):
    done(*COMMON, "--out", "first")
    again = json.loads(done("first/", "--budget", "60%", *QUICK, "--out", "second", "--json").stdout)
    first = json.loads(Path("first/summary.json").read_text())["best"]["metrics"]
    assert again["verified"] and again["original"]["metrics"]["macs"] == first["macs"] and again["original"]["name"] == "first"
    assert again["original"]["metrics"]["test_accuracy"] == first["test_accuracy"]
    assert reload(Path("second/best"))(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    # the one that was delivered, by its key; a slash at the end names the same network, and so the run may be gone on with
    key = json.loads(Path("first/summary.json").read_text())["best"]["key"]
    third = json.loads(done(f"first/:{key[:6]}", "--budget", "60%", *QUICK, "--out", "third", "--json").stdout)
    assert third["verified"] and third["best"]["metrics"]["macs"] == again["best"]["metrics"]["macs"]
    assert third["original"]["name"] == f"first:{key[:6]}"
    assert [tidied(name) for name in ("first/", f"first/:{key}", "resnet18")] == ["first", f"first:{key}", "resnet18"]
    # what a search or a quantization evaluated has no weights of its own
    shutil.rmtree("first/networks")
    Path("first/best/source.json").unlink()
    refused = prune(f"first:{key[:6]}", "--budget", "60%", *QUICK)
    assert refused.exit_code == 2 and "only nas prune keeps weights of each of its networks" in refused.stderr
    unknown = prune("third:zzz", "--budget", "60%", *QUICK)
    assert unknown.exit_code == 2 and "'third' has no trial 'zzz' among its 1; the nearest are" in unknown.stderr
    # a trained original answers for blended images, a random one knows nothing of them
    assert [RunDir.read(Path(name)).config["augmentation"]["mixup"] for name in ("first", "second")] == [0.0, 0.2]


def test_without_data_the_network_is_cut_and_no_accuracy_is_claimed(folder):
    result = done("cifar-resnet20", "--budget", "70%params", "--device", "cpu", "--threads", "1", "--out", "run", "--json")
    summary = json.loads(result.stdout)
    assert summary["verified"] and not {"val_accuracy", "test_accuracy"} & set(summary["best"]["metrics"])
    assert summary["best"]["metrics"]["params"] <= 0.7 * summary["original"]["metrics"]["params"]
    assert "accuracies are not known" in result.stderr and "random weights" in result.stderr


def test_a_bound_on_stored_bytes_is_one_on_the_file(folder):
    done("python:tiny_net:tiny", "--budget", "60%B", *QUICK, "--out", "run")
    summary = json.loads(Path("run/summary.json").read_text())
    size = Path("run/best/model.safetensors").stat().st_size
    limit = 0.6 * summary["original"]["metrics"]["size_bytes"]
    assert summary["best"]["metrics"]["size_bytes"] == size and 0.9 * limit < size <= limit


def test_zeros_are_counted_and_nothing_is_claimed_to_be_faster(folder):
    sparse = ("python:tiny_net:tiny", "--method", "sparse", "--sparsity", "0.5", "--pattern", "2:4", "--activation", "silu")
    result = done(*sparse, *QUICK, "--out", "run", "--json")
    summary = json.loads(result.stdout)
    best, original = summary["best"]["metrics"], summary["original"]["metrics"]
    assert summary["verified"] and best["macs"] == original["macs"] and "zeros save no time" in result.stderr
    assert best["compressed_bytes"] < original["compressed_bytes"]
    module = reload(Path("run/best"))
    weight = module[3].weight.movedim(1, -1).reshape(-1, 4)
    assert ((weight != 0).sum(1) <= 2).all() and isinstance(module[2], nn.SiLU)


def test_a_network_grows_under_its_budget(folder):
    grow = ("python:tiny_net:tiny", "--method", "grow", "--grow-epochs", "2", "--budget", "50%", *QUICK)
    summary = json.loads(done(*grow, "--out", "run", "--json").stdout)
    best, original = summary["best"]["metrics"], summary["original"]["metrics"]
    assert summary["verified"] and 0.4 * original["macs"] < best["macs"] <= 0.5 * original["macs"]


def test_whole_blocks_may_go(folder):
    args = ("python:tiny_net:residual", "--depth", "--budget", "60%", "--mixup", "0.1", *QUICK)
    summary = json.loads(done(*args, "--out", "run", "--json").stdout)
    best, original = summary["best"]["metrics"], summary["original"]["metrics"]
    assert summary["verified"] and best["macs"] <= 0.6 * original["macs"]
    assert set(json.loads(Path("run/best/history.json").read_text())) == {"blocks", "cuts"}
    assert RunDir.read(Path("run")).config["augmentation"]["mixup"] == 0.1


def test_what_is_not_faster_is_said_to_be(tmp_path, capsys):
    before, best = {"macs": 100, "latency_ms": 1.0}, {"key": "k", "metrics": {"macs": 60, "latency_ms": 1.1}}
    summary = {"original": {"name": "net", "metrics": before}, "best": best, "budget": [], "left_out": []}
    with RunDir.create("prune", {"command": "prune"}, tmp_path / "run") as run:
        announce(run, summary)
        assert "warning" not in capsys.readouterr().err
        announce(run, {**summary, "slower": "60% of the multiply-adds, and 110% of the original's time"})
        assert "warning: 60% of the multiply-adds, and 110% of the original's time" in capsys.readouterr().err
        run.write_json("best/verify.json", {"ok": True, "context": f"quiet in 1 of 45 rounds; {BUSY}"})
        assert was_busy(run, summary) and not was_busy(run, {"timed": {"original": "machine quiet"}})


def test_weights_of_a_file_are_those_that_are_cut(folder):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    torch.save(net.state_dict(), "other.pt")
    result = prune("python:tiny_net:tiny", "--weights", "other.pt", "--budget", "50%", "--out", "run")
    assert result.exit_code == 2 and "0.weight is (16, 1, 3, 3) in the network and (16, 3, 3, 3) in the file" in result.stderr


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "no network was given"),
        (["python:tiny_net:tiny"], "no --budget was given"),
        (["python:tiny_net:tiny", "-b", "120%"], "budget '120%' allows as much as the original has; give less than 100%"),
        (["python:tiny_net:tiny", "-b", "5ms@pixel3"], "a cut network is timed on this machine"),
        (["python:tiny_net:tiny", "--sweep", "30-50"], "--sweep '30-50' was not understood"),
        (["python:tiny_net:tiny", "-b", "50%", "--importance", "taylor"], "importance 'taylor' is judged on images"),
        (["python:tiny_net:tiny", "-b", "50%", "--importance", "foo"], "importance 'foo' is not known; choose auto or one of"),
        (["python:tiny_net:tiny", "-b", "50%", "--depth"], "--depth judges networks by their outputs, and there are none"),
        (["python:tiny_net:tiny", "-b", "50%", "--finetune-epochs", "2"], "--finetune-epochs 2 needs images to train on"),
        (["python:tiny_net", "-b", "50%"], "write python:package.module:function"),
        (["python:no_such_file:net", "-b", "50%"], "cannot be made (ModuleNotFoundError: No module named 'no_such_file')"),
        (["python:tiny_net:broken", "-b", "50%"], "(ValueError: no luck at "),
        (["python:tiny_net:broken", "-b", "50%"], "tiny_net.py:31 in broken: raise ValueError('no luck'))"),
        (
            ["python:tiny_net:branching", "-b", "50%", "--shape", "1x8x8"],
            "in forward: if x.sum() > 0:); check the shape, and keep",
        ),
        (["python:tiny_net:pooling", "-b", "50%", "--shape", "1x8x8"], "has no weights, so that nothing of it can be cut"),
        (["python:tiny_net:number", "-b", "50%"], "is int; the function must return an nn.Module"),
        (["python:tiny_net:tiny", "-b", "50%", "--weights", "none.pt"], "cannot read weights 'none.pt'"),
        (["torchvision:resnet5", "-b", "50%"], "torchvision has no model 'resnet5'; nearest: resnet50"),
        (
            ["python:tiny_net:tiny", "-b", "50%", "--method", "shrink", "--shape", "1x8x8"],
            "--method 'shrink' is not known; choose one of cut, grow",
        ),
        (
            ["python:tiny_net:tiny", "--sparsity", "0.5", "--shape", "1x8x8"],
            "--sparsity 0.5 is of --method sparse, and this is cut",
        ),
        (["python:tiny_net:tiny", "--method", "sparse", "--sparsity", "0.5", "--depth"], "--depth is of --method cut"),
        (
            ["python:tiny_net:tiny", "--method", "sparse", "--sparsity", "0.6", "--pattern", "1:4", "--shape", "1x8x8"],
            "sparsity 0.6 is none of 1:4, where whole weights of each 4 go; give 0.25 or 0.5 or 0.75",
        ),
        (["python:tiny_net:tiny", "--sweep", "30,,40%"], "--sweep '30,,40%' was not understood"),
        (["python:tiny_net:tiny", "--sweep", ""], "--sweep '' was not understood"),
        (["python:tiny_net:tiny", "-b", "half"], "or 50%, 50%params, 50%B, 50%latency"),
        (["cifar-resnet20", "--data", "digits", "-b", "50%"], "digits has such images: give others, or a --resolution"),
        (["model.onnx", "-b", "50%"], "network 'model.onnx' is a graph, and a module is needed; give the run"),
        (["python:tiny_net:tiny", "--method", "sparse", "-b", "50%", "--shape", "1x8x8"], "--method sparse wants --sparsity"),
        (["python:tiny_net:tiny", "--method", "grow", "-b", "50%", "--shape", "1x8x8"], "--method grow trains the network"),
        (["python:tiny_net:tiny", "-b", "50%", "--precision", "int8"], "pruning delivers networks in floating point"),
    ],
)
def test_what_a_user_may_get_wrong(folder, args, expected):
    result = prune(*args)
    assert result.exit_code == 2, result.stderr
    assert expected in result.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("args", "status", "expected"),
    [
        (["-b", "1%"], 3, "no cut keeps 1%"),
        (["-b", "90MFLOPs"], 2, "so nothing is to be cut; give a smaller one"),
    ],
)
def test_budgets_that_no_cut_can_keep(folder, args, status, expected):
    result = prune("python:tiny_net:tiny", *args, *QUICK, "--out", "run")
    assert result.exit_code == status and expected in result.stderr


def test_data_of_other_classes_are_refused(folder):
    result = prune("python:tiny_net:wide", "--budget", "50%", *QUICK)
    assert result.exit_code == 2
    assert "python:tiny_net:wide tells 12 classes apart, and digits has 10 (0, 1, 2, ...)" in result.stderr
    assert np.all([not p.name.startswith("runs") for p in folder.iterdir()])


def test_two_aims_that_end_in_the_same_network_have_it_once_and_trained(folder):
    uniform = ("python:tiny_net:tiny", "--allocation", "uniform", *QUICK)
    done(*uniform, "--budget", "50%", "--out", "one")
    result = done(*uniform, "--budget", "50%", "--sweep", "50,50.01,70%", "--out", "several")
    assert "50.01% ends with network" in result.stderr
    one, several = trials("one"), trials("several")
    assert [row["key"] for row in several[:4]] == [one[0]["key"], *[one[1]["key"]] * 3] and len(several) == 5
    assert all(row["scores"] == one[1]["scores"] for row in several[1:4])
    assert [row["number"] for row in RunDir.read(Path("several")).read_lines("cuts.jsonl")] == [1, 3, 4]
    kept = [reload(Path(run) / "networks" / one[1]["key"]).state_dict() for run in ("one", "several")]
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in kept), strict=True))


def test_a_level_that_no_cut_keeps_is_left_out_of_a_sweep(folder):
    result = done("python:tiny_net:tiny", "--sweep", "1,60%", *QUICK, "--out", "run", "--json")
    assert "warning: 1% is left out: no cut keeps 1%" in result.stderr
    assert [row["state"] for row in RunDir.read(Path("run")).trials()] == ["complete", "infeasible", "complete"]
    summary = json.loads(result.stdout)
    assert summary["verified"] and len(summary["left_out"]) == 1 and "no cut keeps 1%" in summary["left_out"][0]
    assert all("no cut keeps 1%" in Path(f"run/report.{kind}").read_text() for kind in ("html", "md"))
    assert prune("python:tiny_net:tiny", "--sweep", "1,2%", *QUICK, "--out", "none").exit_code == 3
    # a budget is no level: what was asked for is not left out
    refused = prune("python:tiny_net:tiny", "--budget", "1%", "--sweep", "60%", *QUICK, "--out", "asked")
    assert refused.exit_code == 3 and "no cut keeps 1%" in refused.stderr
    assert len(RunDir.read(Path("asked")).trials()) == 1


def test_several_steps_cut_below_what_one_may(folder):
    once = ("python:tiny_net:tiny", "--budget", "25%", "--least", "0.5", *QUICK)
    refused = prune(*once, "--out", "one")
    assert refused.exit_code == 3 and "no cut keeps 25%" in refused.stderr
    done(*once, "--steps", "3", "--out", "three")


def test_what_no_cut_keeps_is_refused_before_anything_is_measured(folder):
    result = prune("python:tiny_net:tiny", "--budget", "1%", *QUICK, "--out", "run")
    assert result.exit_code == 3 and "distortion curves" not in result.stderr and "importance" not in result.stderr
