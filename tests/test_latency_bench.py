"""Growing a table by measuring: what is measured, what is kept, and what a network needs. Times are not asserted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import space_for

from compress.export import write_format
from nas.cost.measure import BUSY, MeasureSettings, Timing
from nas.errors import InvalidSetting
from nas.latency import bench as benches
from nas.latency.bench import (
    Bench,
    bench_at,
    calibrated,
    calibrated_on_parts,
    is_calibrated,
    lacking,
    parts_of,
    units_of,
    with_units,
)
from nas.latency.machine import cache_bytes, cores, pinned, table_path
from nas.latency.predictor import Predictor
from nas.latency.table import read_table, write_table
from nas.latency.units import units
from nas.runtimes.runtime import Setting
from nas.seeding import numpy_rng
from search_spaces.staged import DataShape

ONCE = MeasureSettings(
    rounds=1, extra_rounds=0, sample_ms=0, least_calls=1, most_calls=1, settling_calls=0, steady_samples=1, most_warmups=1
)
BENCH = Bench("onnxruntime", Setting(), ONCE)


@pytest.mark.parametrize("name", ["mobilenet", "resnet", "fbnet"])
@pytest.mark.parametrize(("budget", "shape"), [("0.5MFLOPs", DataShape(1, 8, 3)), ("20MFLOPs", DataShape(3, 32, 10))])
def test_networks_consist_of_the_units_of_their_space(name, budget, shape):
    space, rng = space_for(name, budget, shape), numpy_rng(0, "networks")
    known = {unit.key for unit in units_of(space)}
    seen = {unit.key for _ in range(60) for unit in units(space.plan(space.sample(rng)))}
    assert seen <= known


def test_a_table_grows_in_batches_and_goes_on_where_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(benches, "UNITS_AT_ONCE", 4)
    space = space_for("resnet")
    wanted = units_of(space)
    grown = with_units(BENCH, BENCH.empty_table(), wanted)
    first = next(grown)
    assert len(first.entries) == 4 < len(wanted)
    write_table(first, tmp_path / "table.csv")  # the process dies here
    *_, last = with_units(BENCH, read_table(tmp_path / "table.csv"), wanted)
    assert set(last.entries) == {unit.key for unit in wanted} and not lacking(last, wanted)
    assert {key: last.entries[key] for key in first.entries} == dict(first.entries), "what was measured is kept"
    assert list(with_units(BENCH, last, wanted)) == []
    assert last.target == BENCH.target and {"date", "load", "cache_bytes", "source"} <= set(last.made)
    assert all(entry.latency_ms > 0 and entry.rounds == 1 for entry in last.entries.values())


def test_calibration_replaces_that_of_the_same_space_alone(monkeypatch):
    monkeypatch.setattr(benches, "CALIBRATION_NETWORKS", 3)
    spaces = space_for("resnet"), space_for("mobilenet")
    table = BENCH.empty_table()
    for space in (*spaces, spaces[0]):
        table = calibrated(BENCH, [table, *with_units(BENCH, table, units_of(space))][-1], space)
    assert {row.space for row in table.calibration} == {space.id for space in spaces}
    assert len(table.calibration) == 6
    assert all(is_calibrated(table, space.id) for space in spaces)
    for space in spaces:
        assert Predictor(table, space.id).predict(space.plan(space.largest())).latency.value > 0


def test_files_are_timed(tmp_path):
    space = space_for("resnet")
    arch, image = space.smallest(), torch.zeros(1, 1, 8, 8)
    write_format("onnx", space.network(arch).eval(), image, tmp_path / "a.onnx")
    (timing,) = BENCH.time_files({tmp_path / "a.onnx": image}).values()
    assert timing.ms > 0 and timing.metric.unit == "ms"


@pytest.mark.parametrize(("ms", "notes", "rounds"), [(1.0, "", [0]), (1.0, BUSY, [0, 600]), (50.0, BUSY, [0, 100])])
def test_what_is_judged_on_a_busy_machine_is_timed_for_longer(monkeypatch, ms, notes, rounds):
    taken = []

    def time_files(bench, examples):
        taken.append(bench.measuring.extra_rounds)
        return {path: Timing(ms, 0.1, 1, 1, "", notes) for path in examples}

    monkeypatch.setattr(Bench, "time_files", time_files)
    BENCH.judge_files({Path("a"): torch.zeros(1), Path("b"): torch.zeros(1)})
    assert taken == rounds


def test_a_bench_that_cannot_measure_is_refused_at_once():
    with pytest.raises(InvalidSetting, match="does not run precision 'fp16' on cpu"):
        Bench("onnxruntime", Setting(precision="fp16"))
    with pytest.raises(InvalidSetting, match="runtime 'tvm' is not known"):
        Bench("tvm", Setting())


def test_the_target_says_what_is_set():
    target = Bench("torch", Setting(precision="bf16", batch=4, threads=2), ONCE).target
    assert (target.runtime, target.precision, target.batch, target.threads) == ("torch", "bf16", 4, 2)
    assert target.runtime_version == torch.__version__ and target.cores == cores() and target.device


def test_threads_are_pinned_and_let_go():
    before = cores()
    with pinned(1):
        assert cores() == 1 or before == 1
    assert cores() == before


def test_the_cache_of_a_card_is_not_asked_for():
    assert cache_bytes("cuda") == 0 <= cache_bytes("cpu")


def test_tables_are_kept_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NETCARVER_TABLES", str(tmp_path))
    assert table_path(BENCH.target) == tmp_path / f"{BENCH.target.slug}.csv"
    monkeypatch.delenv("NETCARVER_TABLES")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert table_path(BENCH.target).parent == tmp_path / "netcarver" / "tables"


def test_parts_of_a_network_are_runs_of_its_units():
    space = space_for("mobilenet", "20MFLOPs", DataShape(3, 32, 10))
    plan = space.plan(space.largest())
    whole = [unit.key for unit in units(plan)]
    parts = parts_of(plan, 12)
    assert len(parts) == 12 and parts == parts_of(plan, 12)
    seen = {tuple(unit.key for unit in units(part)) for part in parts}
    assert len(seen) == 12
    for keys in seen:
        assert 0 < len(keys) < len(whole)
        assert any(whole[i : i + len(keys)] == list(keys) for i in range(len(whole)))


def test_a_network_of_no_space_is_calibrated_on_its_parts():
    plan = space_for("resnet").plan(space_for("resnet").largest())
    *_, table = with_units(BENCH, BENCH.empty_table(), units(plan))
    table = calibrated_on_parts(BENCH, table, plan, "torchvision:toy")
    assert is_calibrated(table, "torchvision:toy") and not is_calibrated(table, "resnet")
    assert Predictor(table, "torchvision:toy").predict(plan).latency.value > 0


def test_the_bench_of_a_target_is_found_only_on_its_machine():
    assert bench_at(BENCH.target).target == BENCH.target
    for change in ({"device": "another"}, {"runtime": "tvm"}, {"runtime_version": "0.1"}, {"cores": 99}, {"precision": "fp16"}):
        assert bench_at(replace(BENCH.target, **change)) is None
