"""`nas report`: what is written where, which layers it is told, and wrong use."""

import json
import math
from pathlib import Path

import pytest
from networks import blobs, sandwiched, space_for
from report_run import config, finish, start
from test_cli import save_npz
from typer.testing import CliRunner

from nas.budget import parse_all
from nas.cli import reporting
from nas.cli.layers import write_layers
from nas.cli.main import app
from nas.cli.stages import Course, fit
from nas.cost.counting import count
from nas.data.augment import Augmentation
from nas.report.contents import Network, read_contents
from nas.report.layers import read_layers
from nas.report.training import LOG, MOST_LINES
from nas.rundir import RunDir
from nas.supernet.supernet import Supernet
from nas.training import loop
from nas.training.loop import Checkpoints, TrainConfig
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("search-1", "search-2"):
        with start(tmp_path / "runs" / name) as run:
            finish(run)
    return tmp_path


def report(*args):
    return CliRunner().invoke(app, ["report", *args])


def error_of(*args) -> str:
    result = report(*args)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("nas: error: ")]
    return line


# -- the command


def test_one_run_has_its_report_inside(runs):
    result = report("runs/search-1", "--json")
    assert result.exit_code == 0, result.output
    files = json.loads(result.stdout)["files"]
    names = ["front.csv", "front.parquet", "front.png", "front.svg", "report.html", "report.md", "best/front.svg"]
    assert files == [f"runs/search-1/{name}" for name in names]
    assert all(Path(file).stat().st_size for file in files)
    assert '"extract":"nas extract runs/search-1"' in Path("runs/search-1/report.html").read_text()


def test_several_runs_have_one_page(runs):
    result = report("runs/search-1", "runs/search-2")
    assert result.exit_code == 0 and "wrote runs/comparison.html" in result.stderr
    assert not Path("runs/search-1/report.html").exists()
    page = Path("runs/comparison.html").read_text()
    assert "2 runs compared" in page and "default-src 'none'" in page
    assert report("runs/search-1", "runs/search-2", "--out", "pages/both.html").exit_code == 0
    assert Path("pages/both.html").read_text() == page


def test_runs_on_different_data_are_compared_and_that_is_said(runs):
    assert "warning" not in report("runs/search-1", "runs/search-2").stderr
    stored = json.loads(Path("runs/search-2/config.json").read_text())
    stored["data"]["fingerprint"] = "0ther"
    Path("runs/search-2/config.json").write_text(json.dumps(stored))
    result = report("runs/search-1", "runs/search-2")
    said = "These runs are on different data, so their accuracies are not of the same task"
    assert result.exit_code == 0 and f"warning: {said}" in result.stderr and "search-2: digits, 0ther" in result.stderr
    assert said in Path("runs/comparison.html").read_text()


def test_the_page_is_opened_on_demand(runs, monkeypatch):
    opened = []
    monkeypatch.setattr(reporting.webbrowser, "open", opened.append)
    assert report("runs/search-1").exit_code == 0 and opened == []
    assert report("runs/search-1", "--open").exit_code == 0
    assert opened == [(runs / "runs/search-1/report.html").as_uri()]


def test_wrong_use_is_one_line(runs):
    assert "is no run directory" in error_of("runs")
    assert "is no run directory" in error_of("runs/search-1", "runs")
    assert "--out 'x.html' is for the comparison of several runs" in error_of("runs/search-1", "--out", "x.html")
    # the same run twice is one run
    assert "--out" in error_of("runs/search-1", "runs/search-1", "--out", "x.html")
    assert "is a folder; name the page, such as 'runs/comparison.html'" in error_of(
        "runs/search-1", "runs/search-2", "--out", "runs"
    )
    assert "cannot be written" in error_of("runs/search-1", "runs/search-2", "--out", "runs/search-1/config.json/x.html")
    with RunDir.create("search", config(), out=Path("empty")):
        pass
    assert "nothing to report: none of its 0 trials" in error_of("runs/search-1", "empty")


def test_a_search_records_what_its_report_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_npz("tiny.npz")
    quick = "--budget 300kFLOPs --epochs 1 --trials 5 --space resnet --data npz:tiny.npz --finetune-epochs 1 --out r".split()
    quick += ["--no-baseline"]
    assert CliRunner().invoke(app, ["search", *quick]).exit_code == 0
    contents = read_contents(RunDir.read(Path("r")))
    assert sum(x.macs for x in contents.layers.chosen) == contents.best.metrics["macs"]
    assert [curve.name for curve in contents.curves] == ["training", "training the delivered network"]
    page = Path("r/report.html").read_text()
    assert all(f'<h2 id="{name}">' in page for name in ("architecture", "costs", "training", "search"))
    picture = "front.svg" in Path("r/best/README.md").read_text()
    assert picture == Path("r/best/front.svg").is_file() == (len(contents.front) > 1)
    # the same from what the run has recorded
    Path("r/layers.json").unlink()
    assert report("r").exit_code == 0 and Path("r/report.html").read_text() == page


# -- layers


def test_layers_of_a_search_are_those_of_the_plan(tmp_path):
    family = SPACES["mobilenet"]
    space = sized(family, DataShape(1, 8, 3), list(parse_all(["1MFLOPs"])), family.options())
    settings = {"name": space.name, "version": space.version, "settings": space.settings}
    small = space.smallest()
    with RunDir.create("search", json.loads(json.dumps(config(space=settings))), out=tmp_path / "run") as run:
        assert write_layers(run, Network(small.key, small.choices, {}))
        layers = read_layers(run, small.key, {})
    for rows, plan in ((layers.chosen, space.plan(small)), (layers.reference, space.plan(space.largest()))):
        costs = count(plan).values()
        assert sum(x.macs for x in rows) == costs["macs"] and sum(x.params for x in rows) == costs["params"]
        assert [x.name for x in rows] == [x.name for x in plan.layers]
    assert layers.reference_name == "largest of the space" and layers.image == (1, 8, 8)


def test_runs_whose_networks_cannot_be_built_have_no_layers(tmp_path):
    for command, space in (("search", {"name": "mobilenet", "version": 99, "settings": {}}), ("quantize", {}), ("prune", {})):
        with RunDir.create(command, config(command=command, space=space), out=tmp_path / command) as run:
            assert not write_layers(run, Network("k", {}, {}))
            assert not (run.path / "layers.json").exists()


# -- the log of a training


@pytest.fixture
def course():
    return Course(blobs(), Augmentation(crop_padding=1, flip=False), TrainConfig(epochs=3, batch_size=16, lr=0.05))


def trained(run: RunDir, course: Course) -> list[dict]:
    net = Supernet(space_for("resnet"), seed=0)
    fit("training", net, sandwiched(net, 0), course, Checkpoints(run, "supernet"))
    return run.read_lines(LOG)


def test_a_training_that_goes_on_records_what_a_whole_one_does(tmp_path, course, monkeypatch):
    with RunDir.create("search", config(), tmp_path / "whole") as run:
        whole = trained(run, course)
    steps = 3 * loop.steps_per_epoch(course.data, course.config)
    assert [line["step"] for line in whole] == list(range(1, steps + 1))
    assert all(line["steps"] == steps and line["training"] == "training" and math.isfinite(line["loss"]) for line in whole)

    def killed(*args):
        for progress in loop.train(*args):
            yield progress
            if progress.step == 4:
                raise KeyboardInterrupt

    with RunDir.create("search", config(), tmp_path / "killed") as run:
        monkeypatch.setattr("nas.cli.stages.train", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(run, course)
        monkeypatch.undo()
        (run.path / "checkpoint/supernet.json").unlink()  # as if the last steps had not been saved
        assert trained(run, course) == whole


def test_a_long_training_has_few_lines(tmp_path, course, monkeypatch):
    monkeypatch.setattr("nas.report.training.MOST_LINES", 4)
    with RunDir.create("search", config(), tmp_path / "run") as run:
        steps = [line["step"] for line in trained(run, course)]
    total = 3 * loop.steps_per_epoch(course.data, course.config)
    every = math.ceil(total / 4)
    assert steps == sorted({*range(every, total, every), total}) and len(steps) <= 4 < MOST_LINES


def test_curves_reach_the_page(tmp_path, course):
    with start(tmp_path / "run") as run:
        trained(run, course)
        (curve,) = read_contents(run).curves
    assert (curve.name, curve.epochs, curve.parts[-1]) == ("training", 3, 1.0)
