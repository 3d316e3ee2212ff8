"""`nas quantize` as a user runs it: on digits, with a small trained network of the user's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from own_network import TINY
from typer.testing import CliRunner

from compress.export import load_onnx
from compress.quantize.saved import QUANTIZATION
from nas.cli.main import app
from nas.cli.quantizing import stages
from nas.data.dataset import plain_batches
from nas.data.load import DataConfig, load
from nas.evaluation.supernet import prepared
from nas.rundir import RunDir

NETWORK = ("python:tiny_net:tiny", "--weights", "tiny.pt")
NOISE = (*NETWORK, "--shape", "1x8x8")
QUICK = ("--data", "digits", "--device", "cpu", "--threads", "1", "--images", "64", "--calibration", "mse")
QAT = ("--precision", "w4a8", "--method", "qat", "--finetune-epochs", "1", "--lr", "0.001")
LAYERS = ["0", "3", "6", "10"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a network and its trained weights."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "tiny_net.py").write_text(TINY)
    scope: dict = {}
    exec(TINY, scope)  # noqa: S102 - the text that the command imports
    torch.manual_seed(0)
    module, data = scope["tiny"](), load(DataConfig("digits"))
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    batches = plain_batches(len(data.train), 64)
    for x, y in 6 * list(prepared(data.train, batches, data, data.resolution, torch.device("cpu"))):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    torch.save(module.state_dict(), folder / "tiny.pt")
    return folder


@pytest.fixture(scope="module")
def int8(home):
    """The home, with a network that was quantized to int8 in `run`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        result = done(*NETWORK, *QUICK, "--keep", "first=8", "--budget", "20kB", "--out", "run", "--json")
    return home, json.loads(result.stdout)


@pytest.fixture
def folder(home, tmp_path, monkeypatch):
    for name in ("tiny_net.py", "tiny.pt"):
        shutil.copy(home / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quantize(*args):
    return CliRunner().invoke(app, ["quantize", *map(str, args)])


def done(*args):
    result = quantize(*args)
    assert result.exit_code == 0, result.stderr
    return result


def trials(path):
    """All that two equal runs agree on."""
    rows = RunDir.read(Path(path)).trials()
    for row in rows:
        del row["seconds"]
    return rows


def test_an_int8_network_is_delivered(int8):
    home, summary = int8
    best, original = summary["best"]["metrics"], summary["original"]["metrics"]
    folder, rows = home / "run" / "best", summary["quantization"]["precisions"]
    assert summary["verified"] and summary["command"] == "quantize" and summary["trials"] == 2
    assert {p.name for p in folder.iterdir()} >= {"model.onnx", "model.pt2", "model.safetensors", QUANTIZATION, "verify.json"}
    assert best["macs"] == original["macs"] and original["val_accuracy"] > 0.8 < best["val_accuracy"]
    assert original["bitops"] == 32 * 32 * original["macs"] and best["bitops"] == 8 * 8 * best["macs"]
    # the file is small, but for this little network the graph is most of it
    assert best["size_bytes"] == (folder / "model.onnx").stat().st_size == rows[-1]["size_bytes"]
    assert [row["precision"] for row in rows] == ["fp32", "bf16", "int8"] and not any(row["simulated"] for row in rows)
    assert rows[0]["latency_ms"] > 0 < rows[-1]["latency_ms"] == best["latency_ms"]
    layers = summary["quantization"]["layers"]
    assert [row["name"] for row in layers] == LAYERS
    assert {row["weight_bits"] for row in layers} == {row["activation_bits"] for row in layers} == {"8"}


def test_accuracy_is_that_of_the_exported_file(int8):
    home, summary = int8
    data = load(DataConfig("digits"))
    test = data.load_test()
    batches = prepared(test, plain_batches(len(test), 100), data, 8, torch.device("cpu"))
    run = load_onnx(home / "run" / "best" / "model.onnx")
    right = sum(int((run(x.contiguous()).argmax(1) == y).sum()) for x, y in batches)
    assert summary["best"]["metrics"]["test_accuracy"] == summary["quantization"]["precisions"][-1]["test_accuracy"]
    assert right / len(test) == summary["best"]["metrics"]["test_accuracy"] > 0.75


def test_in_openvino_all_precisions_have_a_time_and_an_accuracy(folder):
    pytest.importorskip("openvino")
    summary = json.loads(done(*NETWORK, *QUICK, "--runtime", "openvino", "--out", "run", "--json").stdout)
    rows = {row["precision"]: row for row in summary["quantization"]["precisions"]}
    timed = [name for name, row in rows.items() if row["latency_ms"] is not None]
    assert {"fp32", "int8"} <= set(timed) and all(rows[name]["test_accuracy"] > 0.5 for name in timed)


def test_a_network_is_not_quantized_twice(int8, monkeypatch):
    monkeypatch.chdir(int8[0])
    result = quantize("run", "--data", "digits", "--out", "again")
    assert result.exit_code == 2 and "quantized" in result.stderr and not Path("again").exists()


def test_a_run_that_was_stopped_after_calibration_ends_as_one_that_was_not(folder, monkeypatch):
    summary = json.loads(done(*NETWORK, *QUICK, *QAT, "--out", "whole", "--json").stdout)
    fit = stages.fit

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "fit", stopped)
    result = quantize(*NETWORK, *QUICK, *QAT, "--out", "parts")
    assert result.exit_code == 130 and "resume with: nas quantize --resume --out parts" in result.stderr
    assert len(trials("parts")) == 2
    monkeypatch.setattr(stages, "fit", fit)
    done("--resume", "--out", "parts")
    assert trials("parts") == trials("whole") and len(trials("whole")) == 3
    networks = [load_onnx(Path(run) / "best" / "model.onnx") for run in ("whole", "parts")]
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(networks[0](x), networks[1](x))
    # the ends have 8 bits unless --keep says otherwise, and 4-bit weights are packed in what is told of their size
    layers = {row["name"]: row["weight_bits"] for row in summary["quantization"]["layers"]}
    assert layers == {"0": "8", "3": "4", "6": "4", "10": "8"}
    bits, channels = 144 * 8 + 24 * 16 * 9 * 4 + 16 * 24 * 9 * 4 + 160 * 8, 16 + 24 + 16 + 10
    assert summary["best"]["metrics"]["size_bytes"] == bits / 8 + 8 * channels
    assert summary["best"]["metrics"]["val_accuracy"] >= max(row["metrics"]["val_accuracy"] for row in summary["front"][1:])


def test_bits_are_chosen_under_a_budget(folder):
    mixed = ("--precision", "mixed", "--budget", "5kB", "--sensitivity", "output-error", "--keep", "last=8", "--no-equalize")
    summary = json.loads(done(*NETWORK, *QUICK, *mixed, "--out", "run", "--json").stdout)
    assert summary["verified"] and summary["budget"][0]["ok"] and 4000 < summary["best"]["metrics"]["size_bytes"] <= 5000
    layers = summary["quantization"]["layers"]
    assert layers[-1]["weight_bits"] == "8" and len({row["weight_bits"] for row in layers}) > 1
    assert all(row["sensitivity"] > 0 for row in layers)


def test_formats_that_nothing_runs_are_simulated_and_have_no_time(folder):
    result = done(*NETWORK, *QUICK, "--precision", "fp8-e4m3", "--budget", "8kB", "--out", "run", "--json")
    summary = json.loads(result.stdout)
    rows = summary["quantization"]["precisions"]
    assert rows[-1]["precision"] == "fp8-e4m3" and rows[-1]["simulated"] and rows[-1]["latency_ms"] is None
    assert "latency_ms" not in summary["best"]["metrics"] and "a time is not" in result.stderr
    assert summary["best"]["metrics"]["size_bytes"] < 8000 and summary["budget"][0]["ok"]
    assert json.loads(Path("run/best", QUANTIZATION).read_text())["simulated"]
    assert "simulated" in Path("run/best/README.md").read_text() + Path("run/report.html").read_text()


def test_a_budget_that_is_broken_is_told_by_the_exit_status(folder):
    result = quantize(*NOISE, "--budget", "0.0001ms", "--keep", "first=8", "--calibration", "min-max", "--out", "run")
    assert result.exit_code == 4 and "0.0001ms" in result.stderr
    assert not json.loads(Path("run/best/verify.json").read_text())["ok"]
    summary = Path("run/summary.json")
    assert not summary.exists() or not json.loads(summary.read_text())["verified"]


def test_a_layer_that_is_kept_is_part_of_the_budget(folder):
    args = ("--precision", "mixed", "--budget", "5kB", "--sensitivity", "output-error", "--keep", "0=8")
    summary = json.loads(done(*NETWORK, *QUICK, *args, "--out", "run", "--json").stdout)
    layers = {row["name"]: row["weight_bits"] for row in summary["quantization"]["layers"]}
    assert layers["0"] == "8" and summary["budget"][0]["ok"] and summary["best"]["metrics"]["size_bytes"] <= 5000


def test_bits_are_judged_by_the_packed_weights_whatever_they_are(folder):
    args = ("--precision", "mixed", "--budget", "12kB", "--sensitivity", "output-error")
    summary = json.loads(done(*NETWORK, *QUICK, *args, "--out", "run", "--json").stdout)
    assert (
        summary["budget"][0]["ok"] and summary["front"][1]["metrics"]["size_bytes"] == summary["best"]["metrics"]["size_bytes"]
    )
    checked = CliRunner().invoke(app, ["verify", "run", "--no-score", "--json"])
    assert all(row["ok"] for row in json.loads(checked.stdout)["budgets"])


def test_formats_that_were_asked_for_are_those_that_are_delivered(folder):
    summary = json.loads(done(*NETWORK, *QUICK, "--precision", "w8afp32", "--out", "run", "--json").stdout)
    formats = {value for name, value in summary["best"]["architecture"]["choices"].items() if name != "method"}
    assert formats == {"w8afp32"}


def test_no_choice_of_bits_keeps_the_budget(folder):
    result = quantize(*NETWORK, *QUICK, "--precision", "mixed", "--budget", "100B", "--out", "run")
    assert result.exit_code == 3 and "no choice of bits keeps '100B': with the fewest that" in result.stderr


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--precision", "int5"], "--precision 'int5' is not known; choose int8"),
        (["--method", "lsq"], "--method 'lsq' is not known; choose ptq"),
        (["--calibration", "max"], "--calibration 'max' is not known; choose auto or one of min-max"),
        (["--keep", "stem"], "--keep 'stem': there is no layer 'stem'"),
        (["--keep", "first=5"], "--keep 'first=5': '5' is no number format; choose one of 2, 3, 4"),
        (["--keep", "first="], "--keep 'first=': '' is no number format"),
        (["--precision", "wfp32afp32"], "--precision 'wfp32afp32' rounds nothing"),
        (["--precision", "fp8-e5m2", "--budget", "1ms"], "budget '1ms' cannot be judged: fp8-e5m2 is simulated"),
        (
            ["--precision", "mixed", "--bits", "16", "--budget", "9kB", "--budget", "35%latency"],
            "cannot be judged: 16 is simulated",
        ),
        (["--precision", "mixed", "--budget", "5kB", "--activation-bits", "5"], "--activation-bits '5' is not a number format"),
        (["--bits", "4"], "--bits is of --precision mixed, and this is int8"),
        (["--precision", "mixed"], "--precision mixed chooses bits under a budget"),
        (["--precision", "mixed", "--budget", "50%"], "budget '50%' does not depend on bits"),
        (["--precision", "mixed", "--budget", "1ms"], "on stored weights or bit operations"),
        (["--precision", "mixed", "--budget", "5kB", "--bits", "5"], "--bits '5' is not a number format"),
        (["--precision", "mixed", "--budget", "5kB", "--sensitivity", "x"], "--sensitivity 'x' is not known"),
        (["--method", "qat"], "--method qat needs images to train on; give --data"),
        (["--method", "qat", "--data", "digits", "--optimizer", "lion"], "--optimizer 'lion' is not known"),
        (["--runtime", "torch"], "runtime 'torch' does not run precision 'int8' on cpu"),
        (["--budget", "5"], "budget '5'"),
        (["--budget", "9kB", "--budget", "8kB"], "both limit size_bytes"),
        (["--weights", "none.pt"], "cannot read weights 'none.pt'"),
        (["python:tiny_net:tiny"], "unexpected extra argument"),
    ],
)
def test_what_a_user_may_get_wrong(folder, args, expected):
    result = quantize(*NOISE, *args)
    assert result.exit_code == 2, result.stderr
    assert expected in " ".join(result.stderr.split())


def test_data_of_other_classes_are_refused(folder):
    result = quantize("python:tiny_net:wide", "--data", "digits", "--out", "run")
    assert result.exit_code == 2 and not Path("run").exists()
    assert "python:tiny_net:wide tells 12 classes apart, and digits has 10 (0, 1, 2, ...)" in result.stderr


def test_no_network():
    result = quantize("--data", "digits")
    assert result.exit_code == 2 and "no network was given; name one" in result.stderr
