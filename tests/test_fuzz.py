"""Mutations of valid files of every kind that a run directory has: readers take or refuse them, and do nothing else."""

import json
import os
import random

import pytest
import report_run

from benchmarks.fuzz import attack, changed, mutated, outcome, readers
from nas.cli.settings import Settings, of_run
from nas.errors import CorruptRun
from nas.records import KINDS, read_record, read_records
from nas.report.contents import read_contents
from nas.report.digest import report_markdown
from nas.report.front import front_csv
from nas.report.page import report_html
from nas.rundir import RunDir

TARGET = {"device": "Abacus", "runtime": "onnxruntime", "runtime_version": "1"}


def searched(path):
    with report_run.start(path, target=TARGET, training={"lr": 0.1}) as run:
        best = report_run.finish(run)["best"]
        run.write_json("layers.json", report_run.layers_json(best["key"]))
        report_run.record_training(run)
        times = {"predicted_ms": 0.2, "measured_ms": 0.3, "spread_ms": 0.01, "context": "quiet"}
        run.append_line("latency.jsonl", {"attempt": 0, "trials": 40, **best, **times})


def made(path, command):
    with report_run.compress(path, command) as run:
        first = {"key": run.trials()[1]["key"], "stage": "cut", "scores": {"val_accuracy": 0.5}}
        run.append_line("stages.jsonl", first)
        row = {"number": 0, "name": "original", "metrics": {"macs": 1.0}, "seconds": 0.0, "ok": True, "broken": ""}
        run.append_line("passes.jsonl", {**row, "network": "x"})


def shown(run):
    """What of a report is text: pictures take long, and show the same."""
    contents = read_contents(RunDir.read(run))
    return report_html(contents), report_markdown(contents), front_csv(contents.front)


@pytest.mark.parametrize("command", ["search", "prune", "quantize", "compress"])
def test_mutated_runs_are_taken_or_refused(command, tmp_path):
    searched(tmp_path / command) if command == "search" else made(tmp_path / command, command)
    found = attack(tmp_path / command, {**readers(), "report": shown}, 500, seed=len(command))
    assert set(found) == {"taken", "refused"}, found


def test_mutations_are_of_every_kind_and_reproducible():
    value = {"a": [1, {"b": "x"}], "c": 2.5}
    several = [json.dumps(changed(value, random.Random(seed))) for seed in range(200)]
    assert len(set(several)) > 50 and several == [json.dumps(changed(value, random.Random(seed))) for seed in range(200)]
    assert value == {"a": [1, {"b": "x"}], "c": 2.5}
    assert mutated(b'{"a": 1}', "x.json", random.Random(1)) == mutated(b'{"a": 1}', "x.json", random.Random(1))


def test_what_goes_wrong_is_told(tmp_path):
    def fails(path):
        raise KeyError("x")

    assert outcome(lambda path: 1, tmp_path, "a b") == "taken"
    assert outcome(fails, tmp_path, "reader file").startswith("reader: KeyError at ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"seed": "1"}', r"config.json' is spoiled: Expected `int`, got `str` at \$.seed"),
        ('{"budgets": [{"limit": 1e200}]}', r"at \$.budgets\[0\].limit"),
        ('{"options": {"lr": 1e999}}', "numbers too large"),
        ('{"options": {"lr": NaN}}', "is not JSON"),
        ("[1]", "is list and no JSON object"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_a_record_names_file_and_field(tmp_path, content, said):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CorruptRun, match=said):
        read_record(tmp_path / "config.json")


def test_a_line_of_a_log_is_named(tmp_path):
    (tmp_path / "training.jsonl").write_text('{"step": 1, "steps": 2}\n{"step": 1, "steps": 0}\n')
    with pytest.raises(CorruptRun, match=r"training.jsonl, line 2 is spoiled: Expected `int` >= 1 at \$.steps"):
        read_records(tmp_path / "training.jsonl")


def test_a_field_that_is_not_there_is_named_once_it_is_asked_for(tmp_path):
    (tmp_path / "config.json").write_text('{"data": {"name": "digits"}}')
    config = read_record(tmp_path / "config.json")
    assert config["data"]["name"] == "digits" and config.get("seed") is None and "seed" not in config
    for ask in (lambda: config["seed"], lambda: config["data"]["mean"]):
        with pytest.raises(CorruptRun, match="config.json' has no '(seed|mean)'"):
            ask()


@pytest.mark.parametrize("key", ["../../x", "a/b", "", "x" * 65, ".."])
def test_keys_lead_out_of_no_folder(tmp_path, key):
    (tmp_path / "trials.jsonl").write_text(json.dumps({"key": key}) + "\n{}\n")
    with pytest.raises(CorruptRun, match=r"at \$.key"):
        read_records(tmp_path / "trials.jsonl")


def test_every_kind_reads_an_empty_record(tmp_path):
    for name in sorted(set(KINDS) - {"history.json"}):
        (tmp_path / name).write_text("{}\n")
        assert (read_records(tmp_path / name)[0] if name.endswith("l") else [read_record(tmp_path / name)]) == [{}]


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "trials.jsonl")
    with pytest.raises(OSError, match="no regular file"):
        read_records(tmp_path / "trials.jsonl")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trials": "5"}, r"Expected `int \| null`, got `str` at \$.trials"),
        ({"budget": "3MFLOPs"}, r"at \$.budget"),
        ({"lr": [0.1]}, r"at \$.lr"),
        ({"widen": 1}, "has the unknown 'widen'"),
    ],
)
def test_options_of_a_run_are_those_of_its_command(tmp_path, change, said):
    options = json.loads(json.dumps({**Settings().to_json(), **change}))
    RunDir.create("search", {"command": "search", "options": options}, out=tmp_path / "run").close()
    with pytest.raises(CorruptRun, match=said):
        of_run(RunDir.read(tmp_path / "run"), Settings)
