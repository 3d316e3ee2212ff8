"""Seconds of a run are those of all processes that worked in it, and its summary comes last."""

import os

import pytest
import report_run

from nas.cli import compressing, elapsed, running
from nas.cli.recipe import Recipe, Step
from nas.errors import CorruptRun
from nas.report.contents import read_contents
from nas.rundir import RunDir


def touched(run, name, moment):
    (run.path / name).write_text("x")
    for path in run.path.rglob("*"):
        os.utime(path, (moment, moment))


def test_seconds_of_a_killed_process_reach_to_its_last_file(tmp_path):
    with RunDir.create("search", {}, out=tmp_path / "run") as run:
        run.append_line(elapsed.FILE, {"began": 1000.0, "before": 7.0})
        touched(run, "a", 1030.0)
    assert elapsed.spent(run.path) == 37.0
    with RunDir.open(run.path) as again:
        elapsed.begin(again, 37.0)
        assert elapsed.total(again, 5.04) == 42.0
        elapsed.end(again)
        again.write_json("summary.json", {"seconds": 42.0})
    assert elapsed.spent(run.path) == 42.0 and not (run.path / "checkpoint").exists()


def test_a_run_without_such_notes_took_nothing_yet(tmp_path):
    RunDir.create("search", {}, out=tmp_path / "run").close()
    assert elapsed.spent(tmp_path / "run") == 0.0


def test_the_summary_is_written_when_the_report_is_there(tmp_path, monkeypatch):
    with report_run.start(tmp_path / "run") as run:
        summary = {**report_run.finish(run), "verified": True}
        (run.path / "summary.json").unlink()
        seen = []
        monkeypatch.setattr(
            RunDir, "write_json", lambda run, name, value: seen.append((name, (run.path / "report.html").is_file()))
        )
        running.concluded(run, summary, lambda run, summary: None, as_json=False)
    assert seen[-1] == ("summary.json", True)


def test_a_report_is_the_same_before_and_after_its_summary_is_written(tmp_path):
    with report_run.start(tmp_path / "run") as run:
        summary = report_run.finish(run)
        after = read_contents(run)
        (run.path / "summary.json").unlink()
        assert read_contents(run, summary) == after


@pytest.mark.parametrize("content", ['{"began": -1, "before": 0}', '{"began": "x", "before": 0}'])
def test_spoiled_notes_are_refused(tmp_path, content):
    RunDir.create("search", {}, out=tmp_path / "run").close()
    (tmp_path / "run/checkpoint").mkdir()
    (tmp_path / "run" / elapsed.FILE).write_text(content + "\n")
    with pytest.raises(CorruptRun, match="sessions.jsonl, line 1"):
        elapsed.spent(tmp_path / "run")


@pytest.mark.parametrize("missing", ["report.html", "report.md"])
def test_a_pass_that_has_ended_has_its_report_and_the_seconds_of_all_its_processes(tmp_path, missing):
    with RunDir.create("compress", {"command": "compress"}, out=tmp_path / "run") as chain:
        chain.append_line(
            "passes.jsonl", {"number": 0, "name": "original", "metrics": {}, "seconds": 0.0, "ok": True, "broken": ""}
        )
        with report_run.start(chain.path / "passes/1-prune") as run:
            summary = {**report_run.finish(run), "seconds": 1234.5}
            summary["original"] = {"name": "x", "metrics": {}}
            run.write_json("summary.json", summary)
            compressing.write_report(run)
        (run.path / missing).unlink()
        _, seconds = compressing._ran(chain, Recipe("x", None, ()), 1, Step("prune", {}, {}))
    assert seconds == 1234.5 and (run.path / missing).is_file()
