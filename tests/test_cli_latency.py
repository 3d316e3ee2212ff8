"""Latency on the command line: tables, budgets in ms, and the clock that decides. The clock of these tests is made up."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import error_of, run, save_npz, trials_of

from nas.cost.counting import count
from nas.cost.measure import Timing
from nas.cost.onnx_plan import onnx_plan
from nas.cost.trace import trace
from nas.latency.bench import Bench
from nas.latency.machine import table_path
from nas.latency.table import read_table, write_table
from nas.runtimes.onnx_graph import onnx_bytes
from nas.runtimes.runtime import Setting

QUICK = ["--epochs", "1", "--trials", "6", "--no-baseline", "--space", "resnet", "--data", "npz:tiny.npz"]


class Machine:
    """Takes a microsecond for a thousand multiply-adds of a plan, and `slowness` times as long for a file."""

    slowness = 1.0
    interrupt_after = None
    measured = 0

    def timing(self, macs, slowness=1.0):
        return Timing(slowness * macs * 1e-6, 0.0, 1, 1, "made up")

    def time_plans(self, plans):
        self.measured += len(plans)
        if self.interrupt_after is not None and self.measured > self.interrupt_after:
            raise KeyboardInterrupt
        return {name: self.timing(count(plan).value("macs")) for name, plan in plans.items()}

    def time_files(self, examples):
        return {path: self.timing(count(onnx_plan(path)).value("macs"), self.slowness) for path in examples}


def quick_write(name, module, image, path):
    path.write_bytes(onnx_bytes(trace(module, image)))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    found = Machine()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NETCARVER_TABLES", str(tmp_path / "tables"))
    monkeypatch.setattr(Bench, "time_plans", lambda bench, plans: found.time_plans(plans))
    monkeypatch.setattr(Bench, "time_files", lambda bench, examples: found.time_files(examples))
    # what is delivered is exported by torch, what is only timed here by the quick way
    monkeypatch.setattr("nas.cli.timing.write_format", quick_write)
    save_npz("tiny.npz")
    return found


def timings(run_path):
    return [json.loads(line) for line in (run_path / "latency.jsonl").read_text().splitlines()]


# -- nas profile


def test_profile_writes_a_table_once(machine, tmp_path):
    result = run("profile", "--space", "resnet", "--data", "digits-shape", "--budget", "1MFLOPs", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    table = read_table(table_path(Bench("onnxruntime", Setting()).target))
    assert told["entries"] == len(table.entries) > 5 and len(table.calibration) > 10
    before = machine.measured
    assert run("profile", "--space", "resnet", "--data", "digits-shape", "--budget", "1MFLOPs").exit_code == 0
    assert machine.measured == before, "nothing is measured twice"
    assert str(table.target) in run("profile", "--list").stdout


def test_an_interrupted_profile_goes_on(machine, monkeypatch):
    monkeypatch.setattr("nas.latency.bench.UNITS_AT_ONCE", 3)
    machine.interrupt_after = 4
    args = ["profile", "--space", "resnet", "--data", "1x8x3", "--budget", "1MFLOPs", "--out", "table.csv"]
    result = run(*args)
    assert result.exit_code == 130 and "3 of" in result.stderr and "start the same command again" in result.stderr
    machine.interrupt_after, machine.measured = None, 0
    assert run(*args).exit_code == 0
    table = read_table(Path("table.csv"))
    assert machine.measured == len(table.entries) - 3 + len(table.calibration)


def test_a_table_of_another_target_is_not_added_to(machine):
    args = ["profile", "--space", "resnet", "--data", "1x8x3", "--budget", "1MFLOPs", "--out", "table.csv"]
    assert run(*args).exit_code == 0
    assert "threads 1 instead of 2" in error_of(*args, "--threads", "2")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--data", "imagenette-shape"], "--data 'imagenette-shape' is no shape; choose digits-shape"),
        (["--space", "vgg"], "--space 'vgg' is not known; choose one of mobilenet"),
        (["--runtime", "tvm"], "runtime 'tvm' is not known; choose one of onnxruntime"),
        (["--precision", "int4"], "does not run precision 'int4' on cpu, it runs fp32, int8 on cpu"),
        (["--device", "cuda"], "cuda"),
    ],
)
def test_bad_profiles(machine, args, said):
    assert said in error_of("profile", *args)


# -- nas search


def test_a_budget_in_ms_is_kept_by_the_measured_time(machine, tmp_path):
    result = run("search", *QUICK, "--budget", "0.3ms", "--budget", "2Mparams", "--json")
    assert result.exit_code == 0, result.output
    summary, path = json.loads(result.stdout), tmp_path / "runs/search-1"
    assert summary["verified"] and [row["ok"] for row in summary["budget"]] == [True, True]
    metrics = summary["best"]["metrics"]
    assert metrics["latency_ms"] == pytest.approx(metrics["macs"] * 1e-6) and metrics["latency_ms"] <= 0.3 * 0.95
    assert {row["key"] for row in timings(path)} >= {row["key"] for row in summary["front"]}
    for row in timings(path):
        assert row["predicted_ms"] == pytest.approx(row["measured_ms"], rel=0.02)
    assert summary["latency"]["networks"] == len(timings(path))
    assert read_table(path / "latency.csv").target == Bench("onnxruntime", Setting()).target
    verify = json.loads((path / "best/verify.json").read_text())
    assert verify["metrics"]["latency_ms"]["method"] == "measured"


def test_a_predictor_that_is_wrong_is_fitted_and_the_search_goes_on(machine, tmp_path):
    machine.slowness = 2.5
    result = run("search", *QUICK, "--budget", "0.35ms", "--json")
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout)["best"]["metrics"]
    assert metrics["latency_ms"] == pytest.approx(2.5 * metrics["macs"] * 1e-6) and metrics["latency_ms"] <= 0.35
    rows = timings(tmp_path / "runs/search-1")
    first = [r for r in rows if r["attempt"] == 0]
    last = [r for r in rows if r["attempt"] == max(r["attempt"] for r in rows)]
    assert max(r["attempt"] for r in rows) > 0

    def off(some):
        return max(abs(r["predicted_ms"] / r["measured_ms"] - 1) for r in some)

    assert off(first) > 0.5 > 0.2 > off(last)


def test_a_limit_that_no_file_keeps_ends_in_exit_4_with_the_best_that_was_found(machine, tmp_path):
    machine.slowness = 1000.0
    error_of("search", *QUICK, "--budget", "0.3ms", status=4)
    path = tmp_path / "runs/search-1"
    summary = json.loads((path / "summary.json").read_text())
    assert not summary["verified"] and [row["ok"] for row in summary["budget"]] == [False]
    assert (path / "best/model.onnx").exists() and (path / "report.html").exists()
    assert summary["best"]["key"] in {row["key"] for row in timings(path)}


def test_a_resumed_search_times_and_finds_the_same(machine, tmp_path):
    machine.slowness = 2.5
    assert run("search", *QUICK, "--budget", "0.35ms").exit_code == 0
    whole = tmp_path / "runs/search-1"
    rows, trials = timings(whole), trials_of(whole)
    boundary = next(row["trials"] for row in rows if row["attempt"] == 1)
    assert boundary > 6, "a second part was searched"
    for kept_trials, kept_rows in ((4, 0), (boundary - 2, sum(r["attempt"] == 0 for r in rows))):
        again = tmp_path / "runs" / f"again-{kept_trials}"
        shutil.copytree(whole, again)
        for name, kept in (("trials.jsonl", kept_trials), ("latency.jsonl", kept_rows)):
            lines = (again / name).read_text().splitlines(keepends=True)
            (again / name).write_text("".join(lines[:kept]))
        (again / "summary.json").unlink()
        result = run("search", "--resume", "--out", str(again))
        assert result.exit_code == 0, result.output
        assert trials_of(again) == trials and timings(again) == rows


def test_a_table_of_another_target_is_refused_unless_accepted(machine, tmp_path):
    profile = ["profile", "--space", "resnet", "--data", "1x8x3", "--budget", "1MFLOPs", "--out", "two.csv", "--threads", "2"]
    assert run(*profile).exit_code == 0
    search = ["search", *QUICK, "--budget", "0.3ms", "--table", "two.csv"]
    assert "threads 2 instead of 1; measure one with nas profile, or add --accept-foreign-table" in error_of(*search)
    lacking = error_of(*search, "--accept-foreign-table")
    assert re.search(r"lacks \d+ of \d+ units of space resnet: .+; choose another table", lacking)


def test_energy_is_a_budget_where_the_table_has_it(machine, tmp_path):
    path = Path("energy.csv")
    args = ["--budget", "300kFLOPs", "--space", "resnet"]
    assert run("profile", *args, "--data", "1x8x3", "--out", str(path)).exit_code == 0
    search = ["search", *QUICK, "--budget", "300kFLOPs", "--table", str(path), "--json"]
    assert "'2mJ' needs energy, which the table does not have" in error_of(*search, "--budget", "2mJ")
    table = read_table(path)
    known = {key: replace(entry, energy_mj=10 * entry.latency_ms) for key, entry in table.entries.items()}
    write_table(replace(table, entries=known), path)
    result = run(*search, "--budget", "2mJ")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert {row["metric"]: row["ok"] for row in summary["budget"]} == {"macs": True, "energy_mj": True}
    metrics = summary["best"]["metrics"]
    assert metrics["energy_mj"] == pytest.approx(metrics["macs"] * 1e-5) and metrics["energy_mj"] <= 2


def test_an_infeasible_limit_names_one_that_is_not(machine):
    said = error_of("search", *QUICK, "--budget", "0.0001ms", status=3)
    nearest = said.rsplit(" ", 1)[1]
    assert nearest.endswith("ms")
    assert run("search", *QUICK, "--budget", nearest).exit_code == 0
