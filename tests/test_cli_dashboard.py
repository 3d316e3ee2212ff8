"""`nas dashboard`: the trials of a run as optuna-dashboard serves them."""

import json
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from report_run import config
from typer.testing import CliRunner

from nas.architecture import Architecture
from nas.budget import Budget, Cost, Metric
from nas.cli import dashboarding
from nas.cli.dashboarding import Followed, Wanted, application, options_of, protected, served
from nas.cli.main import app
from nas.rundir import RunDir
from nas.seeding import numpy_rng
from nas.trial import Trial
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

RESNET = SPACES["resnet"]
SPACE = sized(RESNET, DataShape(1, 8, 10), [Budget.parse("300kFLOPs")], RESNET.options())


def trial(number, state="complete", architecture=None):
    arch = architecture or SPACE.sample(numpy_rng(0, "dashboard", number))
    scores = {"val_accuracy": 0.5 + number / 100} if state == "complete" else {}
    return Trial(
        number,
        arch,
        state,
        Cost({"macs": Metric(1e5 + number, "multiply-adds", "plan")}),
        scores,
        error="too dear"[: 8 * (not scores)],
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A search of a real space, with two networks that were evaluated and one that was not."""
    monkeypatch.chdir(tmp_path)
    space = {"name": SPACE.name, "version": SPACE.version, "settings": SPACE.settings}
    with RunDir.create("search", config(space=json.loads(json.dumps(space))), out=Path("run")) as run:
        for number, state in enumerate(["complete", "infeasible", "complete"]):
            run.append_trial(trial(number, state).to_json())
        yield run


@contextmanager
def serving(followed):
    """What the dashboard answers to a path."""
    wanted = Wanted(followed.run.path, port=0)
    with served(application(followed), wanted, followed.follow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield lambda path: urlopen(f"http://localhost:{server.server_port}/{path}").read()
        finally:
            server.shutdown()
            thread.join()


def dashboard(*args):
    return CliRunner().invoke(app, ["dashboard", *map(str, args)])


def test_the_trials_are_served(run):
    pytest.importorskip("optuna_dashboard")
    with serving(Followed(RunDir.read(run.path))) as get:
        (summary,) = json.loads(get("api/studies"))["study_summaries"]
        study = json.loads(get(f"api/studies/{summary['study_id']}"))
        assert b"<html" in get(dashboarding.FIRST_STUDY)
    assert summary["study_name"] == "run" and summary["directions"] == ["minimize", "minimize"]
    assert study["objective_names"] == ["val_error", "macs"]
    assert [t["state"] for t in study["trials"]] == ["Complete", "Fail", "Complete"]
    assert study["trials"][2]["values"] == [pytest.approx(0.48), 1e5 + 2]
    shown = {p["name"]: p["param_external_value"] for p in study["trials"][0]["params"]}
    assert shown == {name: str(value) for name, value in trial(0).architecture.choices.items()}


def test_new_trials_are_followed_and_nothing_is_written(run):
    before = sorted(run.path.iterdir())
    followed = Followed(RunDir.read(run.path))
    run.append_trial(trial(3).to_json())
    with (run.path / "trials.jsonl").open("a") as log:
        log.write('{"number": 4, "to')
    followed.follow()
    followed.follow()
    assert followed.count == 4 and len(followed.study.storage.get_all_trials(0)) == 4
    assert sorted(run.path.iterdir()) == before


def test_the_server_looks_into_the_run_in_between(run, monkeypatch):
    pytest.importorskip("optuna_dashboard")
    looked, followed = threading.Event(), Followed(RunDir.read(run.path))
    monkeypatch.setattr(followed, "follow", looked.set)
    with serving(followed):
        assert looked.wait(30)


def test_units_of_a_pruning_are_numbers_up_to_those_of_the_original(tmp_path):
    choices = {"conv1": 16, "conv2": 24}
    cut = {"conv1": 8, "conv2": 12, "block.removed": True, "method": "grow"}
    with RunDir.create("prune", config(command="prune", space={"name": "prune:net"}), out=tmp_path / "run") as run:
        for number, values in enumerate((choices, cut)):
            run.append_trial(trial(number, architecture=Architecture("prune:net@1", values)).to_json())
    assert options_of(run.config, run.trials()) == {"conv1": range(17), "conv2": range(25)}
    stored = Followed(RunDir.read(run.path)).study.storage.get_all_trials(0)[1]
    assert (
        stored.params == {"conv1": 8, "conv2": 12}
        and stored.user_attrs["block.removed"]
        and stored.user_attrs["method"] == "grow"
    )


def test_ctrl_c_ends_it(run, monkeypatch):
    pytest.importorskip("optuna_dashboard")

    def interrupted(server):
        raise KeyboardInterrupt

    opened = []
    monkeypatch.setattr(dashboarding.Server, "serve_forever", interrupted)
    monkeypatch.setattr(dashboarding.webbrowser, "open", opened.append)
    result = dashboard("run", "--port", 0, "--open")
    assert result.exit_code == 0 and "3 trials of run on http://localhost:" in result.stderr
    assert len(opened) == 1 and opened[0].endswith("/dashboard/studies/0")


def test_a_port_in_use_is_refused(run):
    pytest.importorskip("optuna_dashboard")
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        result = dashboard("run", "--port", taken.getsockname()[1])
    assert result.exit_code == 2 and "cannot be listened on (Address already in use); choose another --port" in result.stderr


def test_a_missing_package_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    result = dashboard("run")
    assert result.exit_code == 2 and "pip install 'netcarver[dashboard]'" in result.stderr


def test_runs_without_evaluated_trials_are_refused(run, tmp_path):
    (run.path / "trials.jsonl").write_text(json.dumps(trial(0, "infeasible").to_json()) + "\n")
    result = dashboard("run")
    assert result.exit_code == 2 and "none of its 1 trials has an accuracy" in result.stderr
    assert "'none' is no run directory" in dashboard("none").stderr


def asked(wanted, method="GET", **headers):
    """The status that a request gets."""
    said = []

    def app(environ, start):
        start("200 OK", [])
        return [b""]

    list(protected(app, wanted)({"REQUEST_METHOD": method, **headers}, lambda status, _: said.append(status[:3])))
    return said


def test_pages_of_other_sites_get_no_answer():
    wanted = Wanted(Path("run"))
    for host in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080"):
        assert asked(wanted, HTTP_HOST=host) == asked(wanted, HTTP_HOST=host, HTTP_ORIGIN=f"http://{host}") == ["200"]
        assert asked(wanted, HTTP_HOST=host, HTTP_ORIGIN="http://evil.example") == ["403"]
        assert asked(wanted, HTTP_HOST=host, HTTP_ORIGIN="null") == ["403"]
    for host in ("evil.example", "evil.example:8080", "", "localhost.evil.example", "127.0.0.1.evil.example"):
        assert asked(wanted, HTTP_HOST=host) == ["403"]


def test_a_dashboard_is_read_only_unless_it_is_to_be_editable():
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert asked(Wanted(Path("run")), method, HTTP_HOST="localhost:8080") == ["403"]
        assert asked(Wanted(Path("run"), editable=True), method, HTTP_HOST="localhost:8080") == ["200"]
        assert asked(Wanted(Path("run"), editable=True), method, HTTP_HOST="evil.example") == ["403"]
