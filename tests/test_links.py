"""No writer follows a symbolic link out of a run: what lies outside stays as it is, byte by byte."""

import os
from pathlib import Path

import pytest
import report_run
from torch import nn

from compress.prune.history import History
from compress.prune.saved import save_pruned
from compress.stored import written_aside
from nas import files
from nas.errors import CorruptRun, NasError
from nas.report.write import write_report
from nas.rundir import RunDir

HELD = b"of the user\n"


@pytest.fixture
def run(tmp_path):
    RunDir.create("search", {"command": "search"}, out=tmp_path / "run").close()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(HELD)
    return tmp_path / "run"


def untouched(run):
    outside = run.parent / "outside"
    return os.listdir(outside) == ["file"] and (outside / "file").read_bytes() == HELD


@pytest.mark.parametrize(
    "name", ["trials.jsonl", ".lock", "study.journal", "checkpoint/sessions.jsonl", ".config.json.1.tmp", "best/x/deep", "loop"]
)
@pytest.mark.parametrize("target", ["file", "new", "."])
def test_a_run_with_a_link_out_of_it_is_not_worked_in(run, name, target):
    link = run / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(link if name == "loop" else run.parent / "outside" / target)
    with pytest.raises(NasError, match=r"link|cannot be written"):
        RunDir.open(run)
    assert untouched(run)


@pytest.mark.parametrize("name", ["best", "networks", "passes", "baseline", "checkpoint", "extracted"])
def test_folders_of_a_run_are_not_outside_of_it(run, name):
    (run / name).symlink_to(run.parent / "outside")
    with pytest.raises(CorruptRun, match=f"{name}' is a link that leads out of the run directory; remove that link"):
        RunDir.open(run)
    with pytest.raises(CorruptRun, match="leads out of the run directory"):
        RunDir.read(run).write_text(f"{name}/README.md", "text")
    assert untouched(run)


def test_links_within_a_run_and_to_a_run_are_followed(run):
    (run / "first").mkdir()
    (run / "second").symlink_to("first")
    (run / "study.journal.lock").symlink_to("/elsewhere/study.journal")  # as a killed optuna leaves it
    (run.parent / "alias").symlink_to(run)
    with RunDir.open(run.parent / "alias") as again:
        again.write_text("second/a", "text")
    assert (run / "first/a").read_text() == "text"


def test_whole_files_take_the_place_of_links(run):
    outside = run.parent / "outside/file"
    for write in (lambda p: files.replace(p, b"new"), lambda p: files.write(p, b"new", durable=False)):
        link = run / "summary.json"
        link.unlink(missing_ok=True)
        link.symlink_to(outside)
        aside = run / f".summary.json.{os.getpid()}.tmp"  # what a stranger could have guessed
        aside.symlink_to(outside)
        write(link)
        assert not link.is_symlink() and link.read_bytes() == b"new" and untouched(run)
        aside.unlink(missing_ok=True)


def test_a_log_is_not_appended_to_through_a_link(run):
    with RunDir.open(run) as opened:
        (run / "trials.jsonl").symlink_to(run.parent / "outside/file")
        with pytest.raises(OSError, match="symbolic links"):
            opened.append_trial({"number": 0})
    assert untouched(run)


def test_networks_are_not_saved_through_links(run):
    """Files that are written aside replace links; those of a checkpoint have names that nothing has."""
    folder = run / "networks/0123"
    folder.mkdir(parents=True)
    for name in ("source.json", "history.json", "model.safetensors", "model.onnx"):
        (folder / name).symlink_to(run.parent / "outside/file")
    save_pruned(folder, nn.Linear(2, 2), {"network": "x"}, History())
    with written_aside(folder) as aside:
        (aside / "model.onnx").write_bytes(b"onnx")
    assert untouched(run) and not any(path.is_symlink() for path in folder.iterdir())
    with RunDir.open(run) as opened:
        (run / "checkpoint").mkdir()
        (run / "checkpoint/x-1.safetensors").symlink_to(run.parent / "outside/file")
        (run / "checkpoint/x.json").symlink_to(run.parent / "outside/file")
        opened.save_checkpoint("x", b"payload", {})
        assert opened.load_checkpoint("x") == (b"payload", {})
    assert untouched(run)


def test_reports_take_the_place_of_links(tmp_path):
    with report_run.start(tmp_path / "run") as run:
        report_run.finish(run)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(HELD)
    for path in write_report(RunDir.read(run.path)):
        path.unlink()
        path.symlink_to(tmp_path / "outside/file")
    assert not any(Path(path).is_symlink() for path in write_report(RunDir.read(run.path)))
    assert untouched(run.path)
