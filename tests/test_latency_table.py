"""Latency tables as files, bound to their target."""

import json
from dataclasses import replace

import pytest

from nas.errors import InvalidSetting
from nas.latency.table import Calibration, CorruptTable, Entry, LatencyTable, read_table, write_table
from nas.latency.target import Target

TARGET = Target("Some CPU @ 2.0GHz", "onnxruntime", "1.31.1", "fp32", 1, 2, 4)
TABLE = LatencyTable(
    TARGET,
    {
        "c3 8x8 | conv 3x3 c16 relu": Entry(0.1 + 0.2, 1 / 3, 15, 20),
        "c16 8x8 | add c16 relu (0,3)": Entry(1e-5, 0.0, 15, 200, energy_mj=2.5, note="machine busy; not steady"),
    },
    (Calibration({"sum_ms": 1.25, "units": 2.0}, 0.7, "toy-1-abc"),),
    {"date": "2026-11-21", "load": "load average 0.10 on 4 cores", "cache_bytes": 2097152},
    name='odd "name", with comma',
)


@pytest.fixture
def path(tmp_path):
    write_table(TABLE, tmp_path / "sub" / "table.csv")
    return tmp_path / "sub" / "table.csv"


def test_read_is_what_was_written_to_the_last_bit(path):
    assert read_table(path) == TABLE


def test_the_file_is_readable_text(path):
    head, columns, first, *_ = path.read_text().splitlines()
    assert json.loads(head.removeprefix("# "))["target"]["device"] == "Some CPU @ 2.0GHz"
    assert columns == "key,latency_ms,spread_ms,rounds,calls,energy_mj,note"
    assert first.startswith("c3 8x8 | conv 3x3 c16 relu,0.30000000000000004,")


def test_a_table_without_a_line_is_truncated(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(CorruptTable, match="truncated: it has 1 of 2 entries"):
        read_table(path)


def test_a_torn_line_is_named(path):
    text = path.read_text()
    path.write_text(text[: text.rindex(",2.5")])
    with pytest.raises(CorruptTable, match="truncated: line 4 is not whole"):
        read_table(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# {", "{{", "is no latency table"),
        ('"schema": 1', '"schema": 7', "schema 7, this netcarver reads 1"),
        ('"target"', '"aim"', "missing required field `target`"),
        (",1e-05,", ",nan,", "line 4: nan ms is no latency"),
        (",1e-05,", ",-1,", "line 4: -1 ms is no latency"),
        (",1e-05,", ",fast,", "could not convert"),
    ],
)
def test_damage_is_named(path, old, new, message):
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(CorruptTable, match=message):
        read_table(path)


def test_what_is_no_table(tmp_path):
    with pytest.raises(InvalidSetting, match="there is no latency table .*nas profile"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptTable, match="not text"):
        read_table(tmp_path / "binary.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(CorruptTable):
        read_table(tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 1}, "threads 2 instead of 1"),
        ({"device": "Another"}, "device 'Some CPU @ 2.0GHz' instead of 'Another'"),
        (
            {"runtime": "torch", "precision": "int8"},
            "runtime 'onnxruntime' instead of 'torch', precision 'fp32' instead of 'int8'",
        ),
        ({"runtime_version": "1.30.0"}, "runtime version '1.31.1' instead of '1.30.0'"),
        ({"batch": 8}, "batch 1 instead of 8"),
        ({"cores": 8}, "cores 4 instead of 8"),
    ],
)
def test_a_table_of_another_target_is_refused_by_name(change, message):
    wanted = replace(TARGET, **change)
    with pytest.raises(InvalidSetting, match=message) as refusal:
        TABLE.require(wanted)
    assert "--accept-foreign-table" in str(refusal.value)
    TABLE.require(wanted, accept=True)


def test_a_table_of_the_same_target_passes():
    TABLE.require(replace(TARGET))


def test_slugs_are_file_names_and_differ():
    slugs = {
        replace(TARGET, **change).slug for change in ({}, {"threads": 1}, {"batch": 2}, {"precision": "int8"}, {"cores": 2})
    }
    assert len(slugs) == 5
    assert TARGET.slug == "some_cpu_2.0ghz-onnxruntime-1.31.1-fp32-b1-t2of4"
