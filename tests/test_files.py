"""Files, logs and locks: old or new, whole lines, and one holder, whenever the process dies."""

import errno
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killing import kill_everywhere

from nas import files
from nas.errors import CorruptRun, InvalidSetting, RunLocked

RECORDS = [{"n": n, "text": 'ä"\n\r'} for n in range(3)]


# -- JSON and whole files


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_a_number_is_no_json(bad, tmp_path):
    with pytest.raises(ValueError):
        files.to_json({"a": [bad]})
    with pytest.raises(ValueError):
        files.append_line(tmp_path / "log.jsonl", {"a": bad})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError):
        files.from_json(str(bad).replace("inf", "Infinity").replace("nan", "NaN").encode())


def test_json_comes_back():
    value = {"ok": True, "metrics": {"macs": 3e6, "exact": 0.1}, "none": None, "list": [1, "ä\n"]}
    assert files.from_json(files.to_json(value)) == value


@pytest.mark.parametrize("durable", [False, True])
def test_replacement_killed_anywhere_is_old_or_new(tmp_path, monkeypatch, durable):
    def prepare(folder: Path) -> Path:
        folder.mkdir()
        (folder / "file").write_bytes(b"old" * 20)
        return folder / "file"

    seen = []
    for path, killed in kill_everywhere(
        monkeypatch, tmp_path, prepare, lambda path: files.replace(path, b"new" * 20, durable=durable)
    ):
        seen.append(path.read_bytes())
        assert seen[-1] in ((b"old" * 20, b"new" * 20) if killed else (b"new" * 20,))
        files.remove_leftovers(path.parent)
        assert list(path.parent.iterdir()) == [path]
    assert seen[0] == b"old" * 20
    assert seen == sorted(seen, reverse=True)  # old, then new: never back


def test_leftovers_are_ours_alone(tmp_path):
    mine = [tmp_path / name for name in ("notes.tmp", ".notes.tmp", "a.12.tmp", ".config.json.12.tmp.bak")]
    for path in mine:
        path.touch()
    (tmp_path / ".config.json.12.tmp").touch()
    files.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(mine)


def test_full_disk_leaves_everything_as_it_was(tmp_path, monkeypatch):
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) > 5:
            return real(descriptor, data[:5])  # also shows that short writes are continued
        raise OSError(errno.ENOSPC, "No space left on device")

    log, file = tmp_path / "log.jsonl", tmp_path / "file"
    files.append_line(log, RECORDS[0])
    files.replace(file, b"old old old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            files.append_line(log, RECORDS[1])
        with pytest.raises(OSError, match="No space left"):
            files.replace(file, b"new new new")
    assert files.read_log(log) == (RECORDS[:1], 0)
    assert file.read_bytes() == b"old old old"
    assert sorted(tmp_path.iterdir()) == [file, log]
    files.append_line(log, RECORDS[1])
    assert files.read_log(log) == (RECORDS[:2], 0)


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    files.replace(tmp_path / "file", b"0123456789")
    files.append_line(tmp_path / "log.jsonl", RECORDS[0])
    assert (tmp_path / "file").read_bytes() == b"0123456789"
    assert files.read_log(tmp_path / "log.jsonl") == (RECORDS[:1], 0)


# -- logs


def test_log_comes_back_in_order(tmp_path):
    log = tmp_path / "log.jsonl"
    assert files.read_log(log) == ([], 0)
    for record in RECORDS:
        files.append_line(log, record)
    assert files.read_log(log) == (RECORDS, 0)
    assert log.read_bytes().count(b"\n") == len(RECORDS)


def test_log_cut_at_any_byte_keeps_its_whole_lines(tmp_path):
    log = tmp_path / "log.jsonl"
    for record in RECORDS:
        files.append_line(log, record)
    data = log.read_bytes()
    ends = [0] + [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data) + 1):
        log.write_bytes(data[:cut])
        whole = sum(0 < end <= cut for end in ends)
        assert files.read_log(log) == (RECORDS[:whole], cut - ends[whole])


@pytest.mark.parametrize("last", [b"\0\0\0\n", b'{"n": 3\n', b"17\n", b"\n", b'{"n": NaN}\n', b"\0\0", b'{"n": 3}'])
def test_last_line_that_is_no_record_is_torn(tmp_path, last):
    log = tmp_path / "log.jsonl"
    files.append_line(log, RECORDS[0])
    with open(log, "ab") as file:
        file.write(last)
    assert files.read_log(log) == (RECORDS[:1], len(last))


@pytest.mark.parametrize("end", [b"", b'{"torn', b'{"torn\n'])
@pytest.mark.parametrize("bad", [b'{"numb', b"", b"[1]", b"\xff\xfe", b'{"n": Infinity}'])
def test_unreadable_line_before_the_last_is_an_error_with_its_number(tmp_path, bad, end):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join([b'{"n": 0}', bad, b'{"n": 2}', end]))
    with pytest.raises(CorruptRun, match="log.jsonl, line 2 is no JSON object"):
        files.read_log(log)


def test_only_one_line_can_be_torn(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"n": 0}\n{"numb\n{"torn')
    with pytest.raises(CorruptRun, match="log.jsonl, line 2 is no JSON object"):
        files.read_log(log)


def test_append_killed_anywhere_gives_the_line_or_not(tmp_path, monkeypatch):
    def prepare(folder: Path) -> Path:
        folder.mkdir()
        return folder / "log.jsonl"

    counts = set()
    for log, killed in kill_everywhere(monkeypatch, tmp_path, prepare, lambda log: files.append_line(log, RECORDS[0])):
        records, _ = files.read_log(log)
        assert records in ((RECORDS[:1], []) if killed else (RECORDS[:1],))
        counts.add(len(records))
    assert counts == {0, 1}


# -- locks

HOLDER = """
import sys
from pathlib import Path
from nas.files import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""

FORKER = """
import os, signal, sys
from pathlib import Path
from nas.files import lock_folder
lock = lock_folder(Path(sys.argv[1]))
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.read()
    print("child ends", flush=True)
else:
    signal.pause()
"""


def start(script: str, path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_one_holder_within_a_process(tmp_path):
    lock = files.lock_folder(tmp_path)
    for _ in range(2):  # a refused one does not take the lock away
        with pytest.raises(RunLocked, match=f"in use by process {os.getpid()};"):
            files.lock_folder(tmp_path)
    lock.close()
    files.lock_folder(tmp_path).close()


def test_second_process_is_refused_until_the_first_is_killed(tmp_path):
    with start(HOLDER, tmp_path) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunLocked) as refusal:
            files.lock_folder(tmp_path)
        assert f"process {process.pid};" in str(refusal.value)
        assert str(tmp_path) in str(refusal.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
        files.lock_folder(tmp_path).close()


def test_forked_child_does_not_keep_the_lock_of_a_killed_parent(tmp_path):
    with start(FORKER, tmp_path) as process:
        assert process.stdout.readline() == "forked\n"
        with pytest.raises(RunLocked):  # the child's copy is closed, the parent's lock is not
            files.lock_folder(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        files.lock_folder(tmp_path).close()
        process.stdin.close()
        assert process.stdout.readline() == "child ends\n"  # it was alive all the time


def test_folder_that_cannot_be_locked(tmp_path):
    with pytest.raises(InvalidSetting, match="cannot be written .*choose another --out"):
        files.lock_folder(tmp_path / "missing")
