"""`nas diff`: what changed between two runs, on made-up run directories."""

import json
from pathlib import Path

import pytest
from report_run import config, finish, row, start, trials
from typer.testing import CliRunner

from nas.cli.main import app
from nas.rundir import RunDir


def diff(*args):
    return CliRunner().invoke(app, ["diff", *map(str, args)])


def found_by(*args):
    result = diff(*args, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A finished run `one`."""
    monkeypatch.chdir(tmp_path)
    with start(Path("one")) as run:
        finish(run)
    return tmp_path


def test_equal_runs_do_not_differ(runs):
    found = found_by("one", "one")
    assert all(not found[name] for name in ("notes", "settings", "versions", "device", "data", "budgets", "architecture"))
    assert all(change["difference"] == 0 for change in found["results"].values())
    assert found["front"]["a"] == found["front"]["b"] and found["front"]["a"]["beaten"] == 0
    assert "the same: settings, versions, device, data" in diff("one", "one").stdout


def test_what_was_given_is_told_where_it_differs(runs):
    changes = {
        "options": {"trials": 50, "searcher": "random"},
        "versions": {"python": "3.11.4", "torch": "2.16.0"},
        "device": {"type": "cuda", "name": "Abacus 9000"},
        "training": {"lr": 0.1},
    }
    with start(Path("two"), **changes) as run:
        finish(run)
    found = found_by("one", "two")
    assert found["settings"]["trials"] == {"a": 40, "b": 50}
    assert found["settings"]["searcher"] == {"b": "random"} and found["settings"]["training.lr"] == {"b": 0.1}
    assert found["versions"] == {"torch": {"a": "2.15.0", "b": "2.16.0"}}
    assert found["device"] == {"type": {"a": "cpu", "b": "cuda"}} and not found["data"]
    text = diff("one", "two").stdout
    assert "python" not in text and "2.16.0" in text and "the same: data" in text


def test_results_have_difference_and_percent(runs):
    with start(Path("two")) as run:
        summary = finish(run)
        best = summary["best"]["metrics"]
        before = dict(best)
        best |= {"macs": before["macs"] // 2, "val_accuracy": before["val_accuracy"] - 0.01, "latency_ms": 0.4}
        del best["size_bytes"]
        summary["best"]["architecture"]["choices"] |= {"s0.b0.kernel": 5}
        del summary["best"]["architecture"]["choices"]["s0.b0.act"]
        summary["budget"][0] |= {"text": "1MFLOPs", "limit": 1e6, "ok": False}
        run.write_json("summary.json", summary)
    found = found_by("one", "two")
    macs = found["results"]["macs"]
    assert macs["difference"] == macs["b"] - macs["a"] and macs["percent"] == pytest.approx(-50, abs=1e-3)
    assert found["results"]["size_bytes"] == {"a": 260_312}
    assert found["architecture"] == {"s0.b0.kernel": {"a": 3, "b": 5}, "s0.b0.act": {"a": "relu"}}
    assert found["budgets"]["macs"]["a"]["ok"] and not found["budgets"]["macs"]["b"]["ok"]
    text = diff("one", "two").stdout
    assert "-50.0%" in text and "-1.00 points" in text and "1MFLOPs" in text and "BROKEN" in text
    assert "-2.4%, within the spread" in text  # of 0.02 ms, as verify.json has it


def test_a_front_that_beats_another_has_more_volume(runs):
    with RunDir.create("search", config(), out=Path("two")) as run:
        for trial in trials():
            line = trial.to_json()
            line["cost"]["macs"]["value"] = 0.9 * line["cost"]["macs"]["value"]
            run.append_trial(line)
    found = found_by("one", "two")
    front = found["front"]
    assert front["objectives"] == ["val_error", "macs"] and front["a"]["networks"] == front["b"]["networks"]
    assert front["a"]["beaten"] == front["a"]["networks"] and front["b"]["beaten"] == 0
    assert 0 < front["a"]["hypervolume"] < front["b"]["hypervolume"] < 1
    assert found["notes"] == ["two has not ended: its best network so far, by what is known of it"]


def test_a_front_of_one_network_dominates_a_box(runs):
    for name, share in (("half", 0.5), ("whole", 1.0)):
        with RunDir.create("search", config(), out=Path(name)) as run:
            line = trials()[0].to_json() | {"scores": {"val_accuracy": 1 - 0.4 * share}}
            line["cost"]["macs"]["value"] = 1e6 * share
            run.append_trial(line)
    front = found_by("half", "whole")["front"]
    assert front["reference"] == pytest.approx([0.44, 1.1e6])
    assert front["a"]["hypervolume"] == pytest.approx((1 - 0.5 / 1.1) ** 2)
    assert front["b"]["hypervolume"] == pytest.approx((1 - 1 / 1.1) ** 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": {**config()["data"], "fingerprint": "beef"}}, "the accuracies are not of the same images"),
        ({"data": {}}, "the accuracies are not of the same images"),
        ({"objectives": ["params"]}, "the runs minimize different costs"),
    ],
)
def test_fronts_that_cannot_be_compared(runs, changes, reason):
    with start(Path("two"), **changes) as run:
        finish(run)
    assert found_by("one", "two")["front"] == {"reason": reason}
    assert f"the fronts are not compared: {reason}" in diff("one", "two").stdout


def test_times_of_other_machines_are_not_compared(runs):
    target = {
        "device": "Abacus",
        "runtime": "r",
        "runtime_version": "1",
        "precision": "fp32",
        "batch": 1,
        "threads": 1,
        "cores": 1,
    }
    for name, device in (("two", "Abacus"), ("three", "Slide rule")):
        with start(Path(name), objectives=["latency_ms"], target={**target, "device": device}) as run:
            run.append_trial({**trials()[0].to_json(), "number": 40})
            run.write_json("summary.json", {"best": row(trials()[0]), "front": [row(trials()[0])], "budget": []})
    assert found_by("two", "three")["front"] == {"reason": "times were taken on different targets"}


def test_other_data_and_spaces_are_said_to_be(runs):
    data = {**config()["data"], "name": "letters", "fingerprint": "beef"}
    with start(Path("two"), data=data, space={"name": "resnet", "version": 1, "settings": {}}) as run:
        finish(run)
    found = found_by("one", "two")
    assert any("different data (digits f00d; letters beef)" in note for note in found["notes"])
    assert "different spaces: architectures are not compared" in found["notes"] and found["architecture"] == {}
    assert found["data"]["fingerprint"] == {"a": "f00d", "b": "beef"}
    assert found["settings"] == {"space.name": {"a": "mobilenet", "b": "resnet"}}


def test_a_run_that_has_evaluated_nothing_is_compared_by_its_settings(runs):
    RunDir.create("train", config(command="train"), out=Path("two")).close()
    found = found_by("one", "two")
    assert found["settings"] == {"command": {"a": "search", "b": "train"}}
    assert found["notes"][0].startswith("different commands (search and train)")
    assert found["notes"][1:] == ["two has evaluated no network yet"]
    assert set(found["results"]["macs"]) == {"a"} and found["front"] == {"reason": "a run has evaluated no network"}


def test_what_is_no_run_is_refused(runs):
    for args in (("one", "none"), ("none", "one")):
        result = diff(*args)
        assert result.exit_code == 2 and "'none' is no run directory" in result.stderr
