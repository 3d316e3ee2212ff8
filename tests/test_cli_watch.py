"""`nas watch`: a run at a moment, a run as it goes on, and its records as event files."""

import json
import os
import sys
from pathlib import Path

import pytest
from report_run import config, finish, start, trials
from typer.testing import CliRunner

from nas.cli import watching
from nas.cli.main import app
from nas.cli.watching import Looker, wanted_trials
from nas.rundir import RunDir

NOBODY = 2**31 - 1  # no process has this number
STEPS = [{"training": "training", "step": s, "steps": 40, "epoch": 0, "loss": 2 / s, "lr": 0.1 * s} for s in (10, 20, 30)]


def watch(*args):
    return CliRunner().invoke(app, ["watch", "run", *map(str, args)])


def seen():
    result = watch("--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A search that goes on, in this process, and has not recorded anything."""
    monkeypatch.chdir(tmp_path)
    with RunDir.create("search", config(), out=Path("run")) as run:
        yield run


def interrupted():
    Path("run/.lock").write_text(str(NOBODY))


def test_a_run_that_has_begun(run):
    found = seen()
    assert found["state"] == "running" and found["stage"] == {"name": "starting", "done": 0, "total": 40}
    assert found["trials"] == {} and found["front"] == [] and "best" not in found
    assert f"process {os.getpid()} works" in watch("--once").stdout


def test_a_training_shows_its_steps(run):
    for line in STEPS:
        run.append_line("training.jsonl", line)
    assert seen()["stage"] == {"name": "training", "done": 30, "total": 40}
    text = watch("--once").stdout
    assert "training 30/40" in text and "training: step 20/40, loss 0.1" in text
    run.append_line("training.jsonl", {**STEPS[0], "step": 40})
    assert seen()["stage"]["name"] == "trials"


def test_a_search_shows_trials_best_and_front(run):
    for trial in trials()[:20]:
        run.append_trial(trial.to_json())
    found = seen()
    complete = [t for t in trials()[:20] if t.state == "complete"]
    assert found["stage"] == {"name": "trials", "done": len(complete), "total": 40}
    assert found["trials"] == {"complete": len(complete), "infeasible": 20 - len(complete)}
    best = max(complete, key=lambda t: t.scores["val_accuracy"])
    assert found["best"]["key"] == best.architecture.key and found["best"]["key"] in {n["key"] for n in found["front"]}
    text = watch("--once").stdout
    assert best.architecture.key in text and "over the budget" in text and "3MFLOPs kept" in text
    assert "trial 19" in text and "trial 14 " not in text


def test_a_finished_run_says_so_and_the_view_ends(run):
    for trial in trials():
        run.append_trial(trial.to_json())
    finish(run)
    found = seen()
    assert found["state"] == "ended" and found["stage"]["name"] == "finished"
    assert found["best"]["metrics"]["test_accuracy"] == 0.9833
    result = watch()
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 1
    assert result.stdout.startswith("run: finished; ") and "98.3% test" in result.stdout


def test_an_interrupted_run_says_so_and_the_view_ends(run):
    run.append_trial(trials()[0].to_json())
    interrupted()
    assert seen()["state"] == "stopped"
    assert "interrupted: no process of this machine works in it" in watch().stdout


def test_a_run_is_followed_to_its_end(run, monkeypatch):
    """Without a terminal: the first look and the last one, whatever happens between."""
    left = trials()

    def pause(seconds):
        assert seconds == 0.5
        for trial in left[:15]:
            run.append_trial(trial.to_json())
        del left[:15]
        if not left:
            finish(run)

    monkeypatch.setattr(watching.time, "sleep", pause)
    lines = watch("--every", 0.5).stdout.splitlines()
    assert len(lines) == 2 and "starting 0/40" in lines[0] and "run: finished" in lines[1]


def test_ctrl_c_ends_the_view_and_not_the_run(run, monkeypatch):
    def pause(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", pause)
    result = watch()
    assert result.exit_code == 0 and "interrupted" not in result.output
    run.append_trial(trials()[0].to_json())  # still locked by its owner


def test_in_a_terminal_the_view_is_drawn_in_its_place(run, monkeypatch, capsys):
    run.append_trial(trials()[0].to_json())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: finish(run))
    watching.run_watch(watching.Wanted(Path("run")), as_json=False)
    text = capsys.readouterr().out
    assert "trials 1/40" in text and "finished" in text and "front of 1" in text


def test_a_line_that_is_being_written_is_passed_over(run):
    pytest.importorskip("tensorboard")
    run.append_trial(trials()[0].to_json())
    with Path("run/trials.jsonl").open("a") as log:
        log.write('{"number": 1, "ke')
    result = watch("--json", "--tensorboard")
    assert json.loads(result.stdout)["trials"] == {"complete": 1} and "torn" not in result.stderr


def test_what_did_not_change_is_not_read_again(run, monkeypatch):
    run.append_trial(trials()[0].to_json())
    look, reads = Looker(RunDir.read(run.path)), []
    monkeypatch.setattr(look, "_read", lambda names, read=look._read: (reads.append(names), read(names)))
    assert look().counts == look().counts == {"complete": 1} and len(reads) == 1
    run.append_trial(trials()[1].to_json())
    assert look().counts == {"complete": 2} and len(reads) == 2


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        ("search", {"trials": 40}, 40),
        ("prune", {"budget": ["50%"], "sweep": None, "sparsity": None}, 2),
        ("prune", {"budget": [], "sweep": "30,50,70%", "sparsity": None}, 4),
        ("prune", {"budget": [], "sweep": None, "method": "sparse", "sparsity": 0.5}, 2),
        ("train", {"trials": 100}, None),
    ],
)
def test_how_many_networks_a_run_evaluates(command, options, expected):
    assert wanted_trials({"command": command, "options": options}) == expected


def test_how_many_networks_a_quantization_and_a_chain_make():
    assert wanted_trials({"command": "quantize"}) == 2 and wanted_trials({"command": "quantize", "training": {}}) == 3
    assert wanted_trials({"command": "compress", "recipe": {"steps": [{}, {}]}}) == 3


def test_of_a_chain_the_pass_that_it_works_on_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = {"steps": [{"name": "prune"}, {"name": "quantize"}]}
    with RunDir.create("compress", config(command="compress", recipe=recipe), out=Path("run")):
        assert seen()["stage"] == {"name": "starting", "done": 0, "total": 3}
        for name, count in (("1-prune", 3), ("2-quantize", 2)):
            with RunDir.create(
                name[2:], config(command=name[2:], options={}, training={}), out=Path("run/passes") / name
            ) as one:
                for trial in trials()[:count]:
                    one.append_trial(trial.to_json())
        found = seen()
        done = sum(t.state == "complete" for t in trials()[:2])
        assert found["run"] == "run" and found["of"] == "compress" and found["state"] == "running"
        assert found["stage"] == {"name": "2-quantize (2 of 2 passes): trials", "done": done, "total": 3}
        assert found["seconds_since_record"] < 60 and found["best"]["key"] in watch("--once").stdout


def test_records_become_event_files(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for line in STEPS:
        run.append_line("training.jsonl", line)
    for trial in trials()[:6]:
        run.append_trial(trial.to_json())
    for _ in range(2):  # written anew, and not twice
        assert watch("--once", "--tensorboard").exit_code == 0
        files = list(Path("run/tensorboard").iterdir())
        assert len(files) == 1
        events = accumulator.EventAccumulator(str(files[0])).Reload()
        rows = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        assert rows["training/loss"] == [(x["step"], pytest.approx(x["loss"])) for x in STEPS]
        assert rows["training/lr"] == [(x["step"], pytest.approx(x["lr"])) for x in STEPS]
        scores = [(t.number, t.scores["val_accuracy"]) for t in trials()[:6] if t.scores]
        assert rows["trials/val_accuracy"] == [(n, pytest.approx(value)) for n, value in scores]
        assert len(rows["trials/macs"]) == 6
        best = [value for _, value in rows["trials/best_val_accuracy"]]
        assert best == sorted(best) and best[-1] == pytest.approx(max(value for _, value in scores))


def test_a_missing_tensorboard_is_named_before_anything_is_shown(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = watch("--tensorboard")
    assert result.exit_code == 2 and "pip install 'netcarver[tensorboard]'" in result.stderr and result.stdout == ""
    assert not Path("run/tensorboard").exists()


def test_what_is_no_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = watch()
    assert result.exit_code == 2 and "'run' is no run directory" in result.stderr


def test_runs_of_other_commands_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with start(Path("run"), command="train", options={}) as run:
        run.append_line("stages.jsonl", {"key": "abc", "stage": "cut", "scores": {"val_accuracy": 0.5}})
    found = seen()
    assert found["of"] == "train" and found["stage"]["name"] == "trials" and "total" not in found["stage"]
    assert "key abc, stage cut" in watch("--once").stdout
