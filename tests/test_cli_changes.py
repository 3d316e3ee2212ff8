"""A training that diverged is resumed with another learning rate, which config.json and the report then tell."""

import pytest
import report_run

from nas.cli.changes import how_to_resume, record_changes
from nas.errors import InvalidSetting, TrainingDiverged
from nas.report.contents import read_contents
from nas.report.digest import report_markdown
from nas.report.page import report_html
from nas.rundir import RunDir

OPTIONS = {"lr": None, "clip_norm": 5.0, "train_precision": "auto", "trials": 40}


def test_a_change_is_recorded_and_told(tmp_path, caplog):
    config = report_run.config(command="train", options=OPTIONS, training={"lr": 0.1})
    with RunDir.create("train", config, tmp_path / "run") as run:
        asked = {"options": {**OPTIONS, "lr": 0.01}, "training": {"lr": 0.01}}
        record_changes(run, asked)
        record_changes(run, asked)  # resumed again: nothing is new
        record_changes(run, {**asked, "options": {**asked["options"], "train_precision": "fp32"}})
        changes = run.config["changes"]
        assert changes == [
            {"option": "lr", "from": None, "to": 0.01},
            {"option": "train_precision", "from": "auto", "to": "fp32"},
        ]
        assert run.config["options"]["lr"] == 0.01 and run.config["training"]["lr"] == 0.01
        for trial in report_run.trials():
            run.append_trial(trial.to_json())
        contents = read_contents(run)
    told = "lr from its default to 0.01, train_precision from auto to fp32"
    assert f"- changed on resume: {told}" in report_markdown(contents) and told in report_html(contents)


def test_a_training_that_is_over_is_not_changed(tmp_path):
    with report_run.start(tmp_path / "run", options=OPTIONS, training={"lr": 0.1}) as run:
        with pytest.raises(InvalidSetting, match="--lr: the training of .* is over"):
            record_changes(run, {"options": {**OPTIONS, "lr": 0.01}})
        assert "changes" not in run.config


def test_the_advice_is_a_command(tmp_path):
    with RunDir.create("search", {"training": {"lr": 0.1}}, out=tmp_path / "run") as run:
        error = how_to_resume(TrainingDiverged("training diverged"), run, "search")
    assert str(error) == f"training diverged; resume from there with: nas search --resume --out {tmp_path / 'run'} --lr 0.01"


def test_what_did_not_change_is_not_recorded(tmp_path):
    with RunDir.create("search", {"options": OPTIONS}, out=tmp_path / "run") as run:
        before = (run.path / "config.json").read_bytes()
        record_changes(run, {"options": {**OPTIONS, "trials": 41}})
        assert (run.path / "config.json").read_bytes() == before
