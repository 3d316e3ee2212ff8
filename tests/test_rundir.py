"""RunDir: what was written is what is read, whenever the process dies."""

import json
import math
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from killing import kill_everywhere

from nas import files
from nas.errors import CorruptRun, InvalidSetting, RunLocked
from nas.rundir import RunDir, latest

CONFIG = {"budget": ["3MFLOPs"], "seed": 0, "resolutions": (16, 32)}
RECORDS = [{"number": n} for n in range(4)]


@pytest.fixture
def run(tmp_path):
    with RunDir.create("search", CONFIG, out=tmp_path / "run") as run:
        yield run


def reopen(path: Path) -> RunDir:
    """Open a run that may have a torn line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RunDir.open(path)


# -- making and finding runs


def test_create_takes_the_next_number(tmp_path):
    base = tmp_path / "runs"
    assert latest("search", base) is None
    for n in (1, 2):
        with RunDir.create("search", CONFIG, base=base) as run:
            assert run.path == base / f"search-{n}"
    (base / "search-9").mkdir()
    (base / "search-x").mkdir()
    with RunDir.create("search", CONFIG, base=base) as run:
        assert run.path == base / "search-10"
    with RunDir.create("prune", CONFIG, base=base) as other:
        assert other.path == base / "prune-1"
    (base / "search-11").mkdir()  # a start that was killed before its config was written
    assert latest("search", base) == base / "search-10"
    assert latest("prune", base) == base / "prune-1"


def test_concurrent_creates_get_different_directories(tmp_path):
    barrier = Barrier(8)

    def create(_: int) -> str:
        barrier.wait()
        with RunDir.create("search", CONFIG, base=tmp_path / "runs") as run:
            return run.path.name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(create, range(8)))
    assert sorted(names) == [f"search-{n}" for n in range(1, 9)]


def test_of_concurrent_creates_in_one_directory_one_wins(tmp_path):
    barrier = Barrier(8)

    def create(seed: int) -> int | None:
        barrier.wait()
        try:
            with RunDir.create("search", {"seed": seed}, out=tmp_path / "run"):
                return seed
        except (RunLocked, InvalidSetting):
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [seed for seed in pool.map(create, range(8)) if seed is not None]
    assert winners == [RunDir.read(tmp_path / "run").config["seed"]]


def test_out_may_be_missing_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        with RunDir.create("search", CONFIG, out=out) as run:
            assert run.path == out
            assert run.config == json.loads(json.dumps(CONFIG))


def test_out_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidSetting, match=r"holds files \(notes.txt\); choose another --out or add --resume"):
        RunDir.create("search", CONFIG, out=tmp_path)
    with pytest.raises(InvalidSetting, match="is a file; choose another --out"):
        RunDir.create("search", CONFIG, out=tmp_path / "notes.txt")
    with pytest.raises(InvalidSetting, match="cannot be written .*choose another --out"):
        RunDir.create("search", CONFIG, out=tmp_path / "notes.txt" / "below")
    with pytest.raises(InvalidSetting, match="cannot be written .*choose another --out"):
        RunDir.create("search", CONFIG, base=tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_run_that_came_and_went_before_the_lock_was_taken_is_left_alone(tmp_path, monkeypatch):
    def lock_late(folder: Path):
        (folder / "config.json").write_text('{"seed": 7}')
        return lock_folder(folder)

    lock_folder = files.lock_folder
    monkeypatch.setattr(files, "lock_folder", lock_late)
    with pytest.raises(InvalidSetting, match="holds files"):
        RunDir.create("search", CONFIG, out=tmp_path / "run")
    monkeypatch.undo()
    with RunDir.open(tmp_path / "run") as run:  # and the refused one has not kept the lock
        assert run.config == {"seed": 7}


def test_config_that_is_not_json_leaves_no_directory(tmp_path):
    with pytest.raises(ValueError):
        RunDir.create("search", {"lr": math.nan}, base=tmp_path / "runs")
    with pytest.raises(TypeError):
        RunDir.create("search", {"path": tmp_path}, base=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("constructor", [RunDir.open, RunDir.read])
def test_opening_what_is_no_run(tmp_path, constructor):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(InvalidSetting, match="no run directory"):
            constructor(path)
    assert list(tmp_path.iterdir()) == []
    for text in (b"", b"{", b"[1]", b'{"lr": NaN}', b"\xff"):
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(CorruptRun, match="config.json"):
            constructor(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    constructor(tmp_path).close()  # the failures have not kept the lock


def test_creation_killed_anywhere_can_be_repeated(tmp_path, monkeypatch):
    made = []
    for out, _ in kill_everywhere(
        monkeypatch, tmp_path, lambda folder: folder, lambda out: RunDir.create("search", CONFIG, out=out).close()
    ):
        made.append((out / "config.json").exists())
        with RunDir.open(out) if made[-1] else RunDir.create("search", CONFIG, out=out) as run:
            assert run.config["seed"] == 0
            assert sorted(p.name for p in out.iterdir()) == [".lock", "config.json"]
    assert made == sorted(made) and made[0] is False


# -- one process at a time


def test_second_run_dir_is_refused(run):
    with pytest.raises(RunLocked, match=f"in use by process {os.getpid()}"):
        RunDir.open(run.path)
    with pytest.raises(InvalidSetting):
        RunDir.create("search", CONFIG, out=run.path)
    run.append_trial(RECORDS[0])
    run.close()
    run.close()
    with RunDir.open(run.path) as again:
        assert again.trials() == RECORDS[:1]


def test_reader_replaces_files_but_neither_appends_nor_checkpoints(run):
    reader = RunDir.read(run.path)
    reader.write_text("report.html", "<p>")
    assert (run.path / "report.html").read_text() == "<p>"
    run.close()
    for reading_or_closed in (reader, run):
        with pytest.raises(AssertionError):
            reading_or_closed.append_trial(RECORDS[0])
        with pytest.raises(AssertionError):
            reading_or_closed.save_checkpoint("supernet", b"", {})
    assert {p.name for p in run.path.iterdir()} == {".lock", "config.json", "report.html"}


WRITER = """
import sys
from pathlib import Path
from nas.rundir import RunDir
run = RunDir.create("search", {}, out=Path(sys.argv[1]))
for step in range(100_000):
    run.append_trial({"number": step, "filler": "x" * 1000})
    run.save_checkpoint("supernet", str(step).encode() * 50_000, {"step": step})
    print(step, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7, 40])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, lines):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(lines)][-1]
        process.send_signal(signal.SIGKILL)
    with reopen(tmp_path / "run") as run:
        numbers = [t["number"] for t in run.trials()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged
        payload, info = run.load_checkpoint("supernet")
        assert acknowledged <= info["step"] and info["step"] in (len(numbers) - 1, len(numbers) - 2)
        assert payload == str(info["step"]).encode() * 50_000
        run.append_trial({"number": len(numbers)})
        run.save_checkpoint("supernet", b"next", {})
        assert [t["number"] for t in run.trials()] == list(range(len(numbers) + 1))
        assert len(list((run.path / "checkpoint").iterdir())) == 2


# -- logs


def test_trials_come_back_in_order(run):
    assert run.trials() == []
    for record in RECORDS[:3]:
        run.append_trial(record)
        run.append_line("logs/training.jsonl", {"step": record["number"]})
    assert run.trials() == RunDir.read(run.path).trials() == RECORDS[:3]
    assert run.read_lines("logs/training.jsonl") == [{"step": n} for n in range(3)]
    run.close()
    with RunDir.open(run.path) as again:
        again.append_trial(RECORDS[3])
        assert again.trials() == RECORDS


@pytest.mark.parametrize("log", ["trials.jsonl", "logs/training.jsonl"])
def test_log_cut_at_any_byte_is_ignored_by_readers_and_repaired_by_writers(run, log):
    for record in RECORDS[:2]:
        run.append_line(log, record)
    run.close()
    data = (run.path / log).read_bytes()
    ends = [0, data.index(b"\n") + 1, len(data)]
    for cut in range(len(data) + 1):
        (run.path / log).write_bytes(data[:cut])
        whole = sum(0 < end <= cut for end in ends)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert RunDir.read(run.path).read_lines(log) == RECORDS[:whole]
            assert (run.path / log).read_bytes() == data[:cut]
            with RunDir.open(run.path) as again:
                assert (run.path / log).read_bytes() == data[: ends[whole]]
                again.append_line(log, {"number": 99})
                assert again.read_lines(log) == [*RECORDS[:whole], {"number": 99}]
        expected = [] if cut in ends else [f"{log} ends in a torn line of {cut - ends[whole]} bytes; it is ignored"]
        expected += [] if cut in ends else [f"{log} ended in a torn line of {cut - ends[whole]} bytes; it was cut off"]
        assert len(caught) == len(expected)
        assert all(text in str(w.message) for text, w in zip(expected, caught, strict=True))


def test_unreadable_line_before_the_last_stops_readers_and_writers(run):
    run.close()
    before = b'{"number": 0}\n{"num\n{"number": 2}\n{"torn'
    (run.path / "trials.jsonl").write_bytes(before)
    for _ in range(2):  # the failed opening has not kept the lock
        for read in (RunDir.open, lambda path: RunDir.read(path).trials()):
            with pytest.raises(CorruptRun, match="trials.jsonl, line 2 is no JSON object"):
                read(run.path)
    assert (run.path / "trials.jsonl").read_bytes() == before


# -- whole files


def test_opening_removes_what_a_killed_process_wrote_aside(run):
    run.write_text("best/model.onnx", "whole")
    run.close()
    (run.path / "best/.model.onnx.123.tmp").write_text("ha")
    RunDir.read(run.path)
    assert (run.path / "best/.model.onnx.123.tmp").exists()
    RunDir.open(run.path).close()
    assert [p.name for p in (run.path / "best").iterdir()] == ["model.onnx"]


def test_files_come_back(run):
    value = {"ok": True, "metrics": {"macs": 3e6}}
    run.write_json("best/verify.json", value)
    run.write_bytes("best/model.onnx", b"\0\1")
    run.write_text("report.html", "ä")
    assert run.read_json("best/verify.json") == value
    assert (run.path / "best/model.onnx").read_bytes() == b"\0\1"
    assert (run.path / "report.html").read_text(encoding="utf-8") == "ä"


def test_not_a_number_is_refused_everywhere(run):
    run.write_json("summary.json", {"old": 1})
    with pytest.raises(ValueError):
        run.write_json("summary.json", {"new": [math.nan]})
    with pytest.raises(ValueError):
        run.append_trial({"score": math.nan})
    with pytest.raises(ValueError):
        run.save_checkpoint("supernet", b"x", {"loss": math.nan})
    assert run.read_json("summary.json") == {"old": 1}
    assert {p.name for p in run.path.iterdir()} == {".lock", "config.json", "summary.json"}


def test_missing_and_broken_files_are_told_apart(run):
    with pytest.raises(InvalidSetting, match=r"summary.json' does not exist; .*--resume"):
        run.read_json("summary.json")
    (run.path / "summary.json").write_text('{"best": ')
    with pytest.raises(CorruptRun, match="summary.json' is not JSON"):
        run.read_json("summary.json")


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/config.json", "best/../../x"])
def test_names_stay_inside_the_run(run, name):
    with pytest.raises(AssertionError):
        run.write_text(name, "")
