"""The command line: what a user types, what is printed, with which exit status, and what is left on the disk."""

import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from nas.cli.main import app

QUICK = ["--budget", "300kFLOPs", "--epochs", "1", "--trials", "5", "--no-baseline"]
QUICK += ["--space", "resnet", "--data", "npz:tiny.npz"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with a small data set of three classes."""
    monkeypatch.chdir(tmp_path)
    save_npz("tiny.npz")
    return tmp_path


def save_npz(name, **changes):
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    images = (rng.integers(0, 60, (150, 8, 8)) + labels[:, None, None] * 80).astype(np.uint8)
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:60], "test_labels": labels[:60]}
    np.savez(name, **{**arrays, **changes})


def run(*args):
    return CliRunner().invoke(app, list(args))


def error_of(*args, status=2):
    """The one line on stderr of a command that fails."""
    result = run(*args)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output and isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("nas: error: ")]
    assert len(lines) == 1
    return lines[0]


def trials_of(path):
    """All lines of trials.jsonl, times aside."""
    lines = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    return [{**line, "seconds": None} for line in lines]


def checkpoint_of(path):
    return next((path / "checkpoint").glob("supernet-*.safetensors")).read_bytes()


def test_search_delivers_a_verified_network(folder):
    result = run("search", *QUICK, "--finetune-epochs", "1", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    out = folder / "runs" / "search-1"
    assert json.loads((out / "summary.json").read_text()) == summary
    assert summary["command"] == "search" and summary["trials"] == 5 and summary["verified"]
    metrics = summary["best"]["metrics"]
    assert set(metrics) >= {"macs", "params", "size_bytes", "peak_bytes", "latency_ms", "val_accuracy", "test_accuracy"}
    assert metrics["macs"] <= 300_000
    assert summary["budget"] == [
        {"text": "300kFLOPs", "metric": "macs", "limit": 300_000, "value": metrics["macs"], "ok": True}
    ]
    best = {p.name for p in (out / "best").iterdir()}
    assert best >= {"architecture.json", "model.safetensors", "model.onnx", "model.pt2", "verify.json", "README.md"}
    assert metrics["size_bytes"] == (out / "best" / "model.safetensors").stat().st_size
    assert json.loads((out / "best" / "verify.json").read_text())["ok"]
    assert {"front.csv", "front.png", "report.html", "config.json"} <= {p.name for p in out.iterdir()}
    assert len({line["key"] for line in trials_of(out)}) == 5
    assert "keeps 300" not in result.stderr and "300kFLOPs kept" in result.stderr
    applied = "shifted by up to 1 pixel, no mirroring"
    assert f"training images: {applied}; --flip if a mirrored image keeps its class" in result.stderr
    for page in ("best/README.md", "report.md", "report.html"):
        assert applied in (out / page).read_text()


def test_a_search_for_int8_delivers_integers(folder):
    result = run("search", *QUICK, "--precision", "int8", "--out", "out", "--json")
    assert result.exit_code == 0, result.output
    summary, best = json.loads(result.stdout), folder / "out" / "best"
    metrics = summary["best"]["metrics"]
    assert metrics["size_bytes"] == (best / "model.onnx").stat().st_size
    assert metrics["bitops"] == 64 * metrics["macs"]  # weights and activations of 8 bits
    assert load_file(best / "model.safetensors")["stem_conv_weight_integers"].dtype == torch.int8
    checked = run("verify", "out")
    assert checked.exit_code == 0, checked.output
    assert "quantized already" in error_of("quantize", "out", "--data", "npz:tiny.npz")


def test_a_killed_search_resumes_to_the_same_trials_and_weights(folder):
    assert run("search", *QUICK, "--out", "whole").exit_code == 0
    command = [sys.executable, "-c", "from nas.cli.main import main; main()", "search", *QUICK, "--out", "killed"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(10_000_000):
        trials = folder / "killed" / "trials.jsonl"
        if (trials.exists() and trials.read_bytes().count(b"\n") >= 2) or process.poll() is not None:
            break
    process.kill()
    process.wait()
    process.stderr.close()
    assert not (folder / "killed" / "summary.json").exists()
    with (folder / "killed" / "trials.jsonl").open("ab") as file:
        file.write(b'{"number": 99, "torn')
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = run("search", "--resume", "--out", "killed")
    assert result.exit_code == 0, result.output
    assert trials_of(folder / "killed") == trials_of(folder / "whole")
    assert checkpoint_of(folder / "killed") == checkpoint_of(folder / "whole")
    assert "torn line" in result.stderr


def test_train_then_search_its_supernet_twice(folder):
    assert run("train", *QUICK[:4], *QUICK[7:], "--out", "net").exit_code == 0
    weights = checkpoint_of(folder / "net")
    assert "nas search --supernet" in error_of("report", "net")
    for searcher in ("random", "optuna-tpe"):
        result = run("search", "--budget", "250kFLOPs", "--supernet", "net", "--trials", "3", "--searcher", searcher)
        assert result.exit_code == 0, result.output
    assert checkpoint_of(folder / "net") == weights
    kept = {path.name.partition("-")[0] for path in (folder / "runs" / "search-1" / "checkpoint").glob("*.safetensors")}
    assert kept == {"finetune"}
    said = error_of("search", "--budget", "250kFLOPs", "--supernet", "runs/search-1")
    assert "runs/search-1 searched the supernet of another run; use --supernet net" in said
    said = error_of("search", "--budget", "250kFLOPs", "--supernet", "net", "--space", "mobilenet")
    assert "--space is 'mobilenet', but the supernet of net was trained with 'resnet'" in said


def test_a_finished_search_is_reported_again(folder):
    assert run("search", *QUICK, "--out", "r").exit_code == 0
    (folder / "r" / "report.html").unlink()
    result = run("report", "r", "--json")
    assert result.exit_code == 0 and (folder / "r" / "report.html").stat().st_size > 1_000_000
    assert {"r/front.csv", "r/front.svg", "r/report.html", "r/report.md"} <= set(json.loads(result.stdout)["files"])


def test_a_toml_file_gives_defaults(folder):
    (folder / "c.toml").write_text('budget = ["300kFLOPs"]\ndata = "npz:tiny.npz"\nspace = "resnet"\nepochs = 1\ntrials = 2\n')
    assert run("search", "-c", "c.toml", "--trials", "3").exit_code == 0
    config = json.loads((folder / "runs" / "search-1" / "config.json").read_text())
    assert (config["options"]["trials"], config["options"]["epochs"]) == (3, 1)
    (folder / "c.toml").write_text('budget = "300kFLOPs"\nset = {resolutions = [6, 8]}\ndata = "npz:tiny.npz"\nepochs = 0\n')
    assert "--epochs is 0; expected 1 to 1,000,000" in error_of("search", "-c", "c.toml")
    (folder / "c.toml").write_bytes(b"\xff")
    assert run("search", "-c", "c.toml").exit_code == 2
    (folder / "c.toml").write_text("bugdet = 1\n")
    result = run("search", "-c", "c.toml")
    assert result.exit_code == 2 and "unknown key 'bugdet'" in result.stderr.replace("\n", " ")


def test_settings_that_contradict_the_resumed_run_are_refused(folder):
    assert run("search", *QUICK, "--out", "r").exit_code == 0
    assert "--trials is 7, but r was started with 5" in error_of("search", "--resume", "--out", "r", "--trials", "7")
    # another device is no contradiction
    assert "--device 'tpu' is not known" in error_of("search", "--resume", "--out", "r", "--device", "tpu")
    assert "run of `nas search`, not of `nas train`" in error_of("train", "--resume", "--out", "r")
    assert "found no run" in error_of("search", "--resume")


def test_spaces_are_listed():
    result = run("spaces", "--budget", "3MFLOPs", "--shape", "1x8x10", "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)["spaces"]}
    assert set(rows) >= {"mobilenet", "resnet"}
    assert rows["mobilenet"]["smallest"]["macs"] <= 750_000 < 3e6 < rows["mobilenet"]["largest"]["macs"]
    assert "multiply-adds" in run("spaces").stdout


BAD = {
    "no budget": ([], "no --budget was given"),
    "unknown unit": (["--budget", "3MFLIPs"], "'3MFLIPs' was not understood"),
    "zero budget": (["--budget", "0MFLOPs"], "'0MFLOPs' is not positive"),
    "negative budget": (["--budget=-3MFLOPs"], "'-3MFLOPs' is not positive"),
    "relative budget": (["--budget", "50%"], "relative to an original network"),
    "unknown space": (["--budget", "3MFLOPs", "--space", "vgg"], "--space 'vgg' is not known; choose one of auto, mobilenet"),
    "unknown setting": (
        ["--budget", "3MFLOPs", "--space", "mobilenet", "--set", "depth=3"],
        "'depth=3' is not NAME=VALUE with a NAME of expansions",
    ),
    "setting of no space": (["--budget", "3MFLOPs", "--set", "depth=3"], "'depth=3' is a setting of one space; name it"),
    "unknown time": (["--budget", "3MFLOPs", "--time", "soon"], "--time 'soon' is not understood"),
    "unknown comparison": (["--budget", "3MFLOPs", "--evaluate", "both"], "--evaluate 'both' is not known"),
    "bad setting": (
        ["--budget", "3MFLOPs", "--space", "mobilenet", "--set", "squeeze_excite=maybe"],
        "expected a value like False",
    ),
    "unknown data": (["--budget", "3MFLOPs", "--data", "digit"], "did you mean digits"),
    "missing file": (["--budget", "3MFLOPs", "--data", "npz:none.npz"], "none.npz"),
    "unknown searcher": (["--budget", "3MFLOPs", "--searcher", "grid"], "--searcher 'grid' is not known; choose one of random"),
    "unknown optimizer": (["--budget", "3MFLOPs", "--optimizer", "lion"], "--optimizer 'lion' is not known"),
    "unknown training precision": (
        ["--budget", "3MFLOPs", "--train-precision", "int4"],
        "--train-precision 'int4' is not known",
    ),
    "precision that the runtime lacks": (
        ["--budget", "3MFLOPs", "--precision", "bf16"],
        "does not run precision 'bf16' on cpu",
    ),
    "unknown runtime": (["--budget", "3MFLOPs", "--runtime", "tvm"], "runtime 'tvm' is not known; choose one of onnxruntime"),
    "unknown table": (["--budget", "3ms@pixel9"], "there is no published latency table 'pixel9'; choose one of pixel3"),
    "table of another space": (["--budget", "3ms@pixel3", "--space", "mobilenet"], "table pixel3 was measured for space fbnet"),
    "missing table": (["--budget", "3ms", "--table", "none.csv"], "there is no latency table 'none.csv'"),
    "energy without a table": (["--budget", "3mJ"], "'3mJ' needs energy, which is not measured here; give a --table"),
    "energy of a table without": (["--budget", "3mJ@pixel1"], "table pixel1"),
    "unknown device": (["--budget", "3MFLOPs", "--device", "tpu"], "--device 'tpu' is not known"),
    "no such device": (["--budget", "3MFLOPs", "--device", "cuda:99"], "--device 'cuda:99' is not there"),
    "device without a number": (["--budget", "3MFLOPs", "--device", "cuda:"], "--device 'cuda:' is not known"),
    "even kernel": (["--budget", "3MFLOPs", "--space", "mobilenet", "--set", "kernels=3,4"], "kernels holds 4"),
    "negative learning rate": (["--budget", "3MFLOPs", "--lr", "-1"], "lr is -1.0"),
    "no images in a step": (["--budget", "3MFLOPs", "--batch-size", "0"], "--batch-size is 0"),
    "two budgets of a kind": (["--budget", "3MFLOPs", "--budget", "4MFLOPs"], "both limit macs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(folder, case):
    args, expected = BAD[case]
    assert expected in error_of("search", *args)
    assert not (folder / "runs").exists()


def test_an_infeasible_budget_names_the_nearest_feasible_one(folder):
    said = error_of("search", *QUICK, "--budget", "1kparams", status=3)
    assert "the smallest network has" in said and "the nearest feasible budget is" in said
    nearest = said.rsplit(" ", 1)[1]
    assert not (folder / "runs").exists()
    assert run("search", *QUICK, "--budget", nearest, "--trials", "1").exit_code == 0


def test_bad_arrays_are_refused(folder):
    for changes, expected in [
        ({"train_labels": np.zeros(150, int)}, "class"),
        ({"train_labels": np.arange(149) % 3}, "149"),
        ({"train_images": np.zeros((150, 8, 9), np.uint8)}, "square"),
        ({"test_images": np.zeros((60, 9, 9), np.uint8)}, "9"),
    ]:
        save_npz("bad.npz", **changes)
        assert expected in error_of("search", "--budget", "300kFLOPs", "--data", "npz:bad.npz")
    assert not (folder / "runs").exists()


def test_a_used_folder_is_refused(folder):
    (folder / "used").mkdir()
    (folder / "used" / "note").write_text("mine")
    assert "used" in error_of("search", *QUICK, "--out", "used")
    assert [p.name for p in (folder / "used").iterdir()] == ["note"]


def test_reporting_what_is_no_run_is_refused(folder):
    assert "none" in error_of("report", "none")


def test_help_imports_nothing_heavy():
    heavy = ("torch", "numpy", "optuna", "pandas", "matplotlib", "onnx", "rich")
    code = f"import sys, nas.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_version_is_shown():
    assert re.fullmatch(r"netcarver \d+\.\d+\.\d+\n", run("--version").stdout)


def test_help_shows_examples():
    for command in ("search", "train", "report", "spaces", "extract", "diff", "watch", "dashboard"):
        assert f"  nas {command}" in run(command, "--help").stdout


def test_a_fine_tuning_that_makes_it_worse_is_not_delivered(folder, monkeypatch):
    from nas.cli import deliver

    def ruined(label, module, *others):
        for parameter in module.parameters():
            parameter.data.zero_()

    monkeypatch.setattr(deliver, "fit", ruined)
    result = run("search", *QUICK, "--epochs", "8", "--finetune-epochs", "1", "--json")
    assert result.exit_code == 0, result.output
    assert "training it alone made it worse" in result.stderr
    trials = trials_of(folder / "runs" / "search-1")
    summary = json.loads(result.stdout)
    assert summary["best"]["metrics"]["val_accuracy"] == max(t["scores"]["val_accuracy"] for t in trials)
