"""`nas baseline`, and the plain network beside a searched one."""

import json
from pathlib import Path

import pytest
import torch
from test_cli import error_of, run, save_npz

from nas.cli.baselines import beside, joined
from nas.cli.deciding import CHOSEN
from nas.cli.deliver import unbeaten
from nas.cli.stages import fit
from nas.errors import InfeasibleBudget
from nas.report.contents import read_contents
from nas.report.explorer import explore
from nas.report.page import report_html
from nas.rundir import RunDir
from nas.weights import from_bytes

PLAIN = ["--budget", "300kFLOPs", "--finetune-epochs", "2", "--data", "npz:tiny.npz"]


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_npz("tiny.npz")
    return tmp_path


def test_a_baseline_is_delivered_verified_and_extracted_like_a_search(folder):
    result = run("baseline", *PLAIN, "--out", "plain", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["command"] == "baseline" and summary["verified"] and summary["trials"] == 1
    assert summary["best"]["metrics"]["macs"] <= 300_000
    config = RunDir.read(Path("plain")).config
    assert {row["family"] for row in config["choice"]} <= {"cnn", "resnet", "mobilenet"}
    assert "plain (" not in result.stderr and "trained alone for" in result.stderr
    assert run("verify", "plain").exit_code == 0
    assert run("report", "plain").exit_code == 0
    assert "--family 'vgg' is not known; choose one of auto, cnn" in error_of("baseline", *PLAIN, "--family", "vgg")


def test_the_last_training_goes_on_from_the_short_ones_also_after_an_interruption(folder, monkeypatch):
    fixed = [*PLAIN, "--family", "cnn", "--train-precision", "fp32"]
    assert run("baseline", *fixed, "--out", "whole").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr("nas.cli.deliver.fit", interrupted)
        assert run("baseline", *fixed, "--out", "killed").exit_code == 130
    begun = RunDir.read(Path("killed")).load_checkpoint(CHOSEN)
    assert begun and begun[0] == RunDir.read(Path("whole")).load_checkpoint(CHOSEN)[0]
    starts = []

    def watched(label, module, *rest):
        starts.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        fit(label, module, *rest)

    monkeypatch.setattr("nas.cli.deliver.fit", watched)
    assert run("baseline", "--resume", "--out", "killed").exit_code == 0
    weights = from_bytes(begun[0])
    assert len(starts) == 1 and all(torch.equal(tensor, weights[name]) for name, tensor in starts[0].items())
    ends = [Path(name, "best/model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert ends[0] == ends[1]


def test_a_search_with_a_baseline_says_which_won_and_delivers_it(folder):
    arguments = ["--epochs", "1", "--trials", "3", "--space", "convnet", "--baseline", "--out", "both", "--json"]
    result = run("search", *PLAIN, *arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    plain = json.loads(Path("both/baseline/summary.json").read_text())
    assert summary["baseline"]["best"] == plain["best"]
    searched, other = summary.get("searched", summary)["best"]["metrics"], plain["best"]["metrics"]
    wins = (other["val_accuracy"], -other["macs"]) > (searched["val_accuracy"], -searched["macs"])
    assert summary["baseline"]["wins"] == wins and ("searched" in summary) == wins
    assert json.loads(Path("both/best/architecture.json").read_text())["key"] == summary["best"]["key"]
    assert beside(summary) in result.stderr
    macs = [row["metrics"]["macs"] for row in summary["front"]]
    assert macs == sorted(macs) and summary["best"]["key"] in {row["key"] for row in summary["front"]}
    explorer = explore(read_contents(RunDir.read(Path("both"))))
    shown = {e.network.key: e.run for e in explorer.entries}
    assert shown[plain["best"]["key"]] == 1 and explorer.runs[1].path == "both/baseline"
    assert set(summary["time"]) >= {"training the supernet", "training the plain network"}
    assert '<h2 id="plain">' in Path("both/report.html").read_text()
    assert '<h2 id="effort">' in Path("both/report.html").read_text()
    result = run("verify", "both")
    assert result.exit_code == 0, result.output


def test_a_search_ends_where_no_plain_network_keeps_the_budget(folder, monkeypatch):
    def none(*_, **__):
        raise InfeasibleBudget("no network of cnn meets 300kFLOPs")

    monkeypatch.setattr("nas.cli.baselines.make_job", none)
    arguments = [
        "--epochs",
        "1",
        "--trials",
        "2",
        "--space",
        "convnet",
        "--baseline",
        "--finetune-epochs",
        "0",
        "--out",
        "alone",
    ]
    result = run("search", *PLAIN[:2], *PLAIN[4:], *arguments)
    assert result.exit_code == 0, result.output
    assert "no plain network beside it: no network of cnn meets 300kFLOPs" in result.stderr
    assert "baseline" not in json.loads(Path("alone/summary.json").read_text())


def test_what_the_delivered_network_beats_is_judged_by_the_objectives():
    def row(accuracy, macs, ms):
        return {"metrics": {"val_accuracy": accuracy, "macs": macs, "latency_ms": ms}}

    delivered, quicker, slower = row(0.9, 1e6, 2.0), row(0.8, 2e6, 1.0), row(0.8, 2e6, 3.0)
    rows = [quicker, delivered, slower, {"metrics": {"val_accuracy": 0.8}}]
    assert unbeaten(rows, delivered, ("latency_ms",)) == [quicker, delivered, rows[3]]
    assert unbeaten(rows, delivered, ("macs",)) == [delivered, rows[3]]


def test_a_plain_network_that_wins_takes_the_place_of_the_searched_one(folder):
    arguments = ["--epochs", "1", "--trials", "2", "--space", "convnet", "--baseline", "--out", "both"]
    assert run("search", *PLAIN, *arguments).exit_code == 0
    with RunDir.open(Path("both")) as opened:
        summary = dict(opened.record("summary.json"))
        own = summary.pop("searched", summary)
        summary |= {"best": {**own["best"], "metrics": {**own["best"]["metrics"], "val_accuracy": 0.0}}}
        plain = dict(RunDir.read(Path("both/baseline")).record("summary.json"))
        plain["best"] = {**plain["best"], "metrics": {**plain["best"]["metrics"], "val_accuracy": 0.5}}
        found = joined(opened, summary, plain)
        opened.write_json("summary.json", found)
    assert found["baseline"]["wins"] and found["best"] == plain["best"] and found["searched"]["best"] == summary["best"]
    assert found["command"] == "search" and any(row["key"] == plain["best"]["key"] for row in found["front"])
    assert json.loads(Path("both/best/architecture.json").read_text())["key"] == plain["best"]["key"]
    assert "the plain network is better" in beside(found)
    assert "this is the plain network" in report_html(read_contents(RunDir.read(Path("both"))))


def test_digits_under_a_budget_of_other_images_are_named_before_any_work(monkeypatch):
    def stop(*_):
        raise InfeasibleBudget("nothing was sized")

    monkeypatch.setattr("nas.cli.deciding.candidates", stop)
    said = run("search", "--budget", "300MFLOPs")
    assert "warning: without --data this trains on 1151 digits of 8 pixels, for which 300MFLOPs is far too much" in said.stderr
    assert "nothing was sized" in said.stderr and "warning" not in run("search", "--budget", "3MFLOPs").stderr


def test_time_is_planned_and_recorded(folder):
    result = run(
        "search", "--budget", "300kFLOPs", "--data", "npz:tiny.npz", "--time", "4s", "--space", "convnet", "--out", "r"
    )
    assert result.exit_code == 0, result.output
    config, summary = RunDir.read(Path("r")).config, json.loads(Path("r/summary.json").read_text())
    assert config["plan"]["seconds"] == 4.0 and not config["plan"]["shared"] and config["plan"]["final_steps"] is None
    assert set(summary["time"]) >= {"training the delivered network"}
    assert "plan (--time 4 s)" in result.stderr and "networks by short trainings, about 1 s" in result.stderr
    assert len(RunDir.read(Path("r")).trials()) == 1
    best = summary["best"]
    assert [row["key"] for row in summary["front"]] == [best["key"]]
    assert summary["front"][0]["metrics"]["val_accuracy"] == best["metrics"]["val_accuracy"]
    assert run("extract", "r", best["key"], "--out", "again").exit_code == 0
    again = json.loads(Path("again/summary.json").read_text())["best"]["metrics"]
    assert again["test_accuracy"] == best["metrics"]["test_accuracy"]
