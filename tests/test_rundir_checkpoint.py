"""Checkpoints of a run directory: the older or the newer one, or an error that names the damage."""

import hashlib
from pathlib import Path

import pytest
from killing import kill_everywhere

from nas.errors import CorruptRun
from nas.rundir import RunDir


@pytest.fixture
def run(tmp_path):
    with RunDir.create("search", {}, out=tmp_path / "run") as run:
        yield run


def test_checkpoint_comes_back_and_replaces_the_older_one(run):
    assert run.load_checkpoint("supernet") is None
    for step in range(3):
        run.save_checkpoint("supernet", bytes([step]) * 10, {"step": step}, durable=step == 1)
        assert run.load_checkpoint("supernet") == (bytes([step]) * 10, {"step": step})
        pointer = run.read_json("checkpoint/supernet.json")
        assert pointer["sha256"] == hashlib.sha256(bytes([step]) * 10).hexdigest()
        assert pointer["bytes"] == 10
        assert {p.name for p in (run.path / "checkpoint").iterdir()} == {"supernet.json", pointer["file"]}
    assert RunDir.read(run.path).load_checkpoint("supernet") == (b"\2" * 10, {"step": 2})


def test_checkpoints_with_similar_names_leave_each_other_alone(run):
    names = ("a", "a-1", "a-1-1", "a-b", "b")
    for step in range(3):
        for name in names:
            run.save_checkpoint(name, f"{name} {step}".encode(), {"step": step})
    assert [run.load_checkpoint(n) for n in names] == [(f"{n} 2".encode(), {"step": 2}) for n in names]
    assert len(list((run.path / "checkpoint").iterdir())) == 2 * len(names)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("older", [0, 1, 2])
def test_checkpoint_killed_anywhere_is_old_or_new(tmp_path, monkeypatch, older, durable):
    def prepare(path: Path) -> RunDir:
        run = RunDir.create("search", {}, out=path)
        for _ in range(older):
            run.save_checkpoint("supernet", b"old" * 20, {"is": "old"})
        return run

    def save(run: RunDir) -> None:
        run.save_checkpoint("supernet", b"new" * 20, {"is": "new"}, durable=durable)

    old, new = (b"old" * 20, {"is": "old"}) if older else None, (b"new" * 20, {"is": "new"})
    seen = []
    for dead, killed in kill_everywhere(monkeypatch, tmp_path, prepare, save):
        dead.close()
        with RunDir.open(dead.path) as run:
            assert run.load_checkpoint("supernet") in ((old, new) if killed else (new,))
            seen.append(run.load_checkpoint("supernet") == new)
            save(run)
            assert run.load_checkpoint("supernet") == new
            assert len(list((run.path / "checkpoint").iterdir())) == 2
    assert seen == sorted(seen) and seen[0] is False


def test_damaged_checkpoint_is_named_with_both_hashes(run):
    run.save_checkpoint("supernet", b"payload", {})
    pointer = run.read_json("checkpoint/supernet.json")
    file = run.path / "checkpoint" / pointer["file"]
    file.write_bytes(b"payloaf")
    with pytest.raises(CorruptRun) as error:
        run.load_checkpoint("supernet")
    for part in (str(file), pointer["sha256"], hashlib.sha256(b"payloaf").hexdigest(), "delete"):
        assert part in str(error.value)
    file.unlink()
    with pytest.raises(CorruptRun, match=f"{pointer['file']}' is missing"):
        run.load_checkpoint("supernet")
    for broken in ("[]", "{}", '{"file": 3, "sha256": "", "info": {}}', '{"file": "supernet-1.safetensors"'):
        (run.path / "checkpoint/supernet.json").write_text(broken)
        with pytest.raises(CorruptRun, match="supernet.json"):
            run.load_checkpoint("supernet")


def test_failed_save_keeps_the_checkpoint_and_its_rest_is_cleaned_up(run, monkeypatch):
    run.save_checkpoint("supernet", b"old", {})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
        run.save_checkpoint("supernet", b"new", {})
    assert run.load_checkpoint("supernet") == (b"old", {})
    run.save_checkpoint("supernet", b"newer", {})
    assert run.load_checkpoint("supernet") == (b"newer", {})
    assert len(list((run.path / "checkpoint").iterdir())) == 2


@pytest.mark.parametrize("name", ["a/b", "..", "", "a.b"])
def test_checkpoint_names_are_plain(run, name):
    with pytest.raises(AssertionError):
        run.save_checkpoint(name, b"", {})
