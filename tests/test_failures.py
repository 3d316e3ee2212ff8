"""Every failure of the machine, and every interruption, is one line with an exit status of its own."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from compress.export import write_format
from nas import files
from nas.cli import running
from nas.cli.errors import guarded
from nas.cli.signals import interruptible
from nas.errors import CorruptRun, MachineFailed, VerificationFailed
from nas.failures import REMEDIES, machine_failure
from nas.rundir import RunDir

ROOT = Path(__file__).parents[1]


def ended(work, *args):
    """The exit status and the lines of a command that does `work`."""
    app = typer.Typer()
    app.command()(guarded(work))
    result = CliRunner().invoke(app, list(args))
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr.splitlines()


def raising(error):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_errors_of_the_system_name_path_reason_and_remedy(number):
    status, lines = ended(raising(OSError(number, os.strerror(number), "some/file")))
    assert status == 5 and len(lines) == 1 and "'some/file'" in lines[0], lines
    assert os.strerror(number) in lines[0] and REMEDIES[number] in lines[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_ran_out_is_told(error):
    status, lines = ended(raising(error))
    assert status == 5 and len(lines) == 1 and "the memory ran out" in lines[0] and "--batch-size" in lines[0]


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_that_leaves_no_memory_is_told_before_torch_is_loaded(monkeypatch, name):
    tight = {getattr(resource, name): (300 << 20, 300 << 20)}
    free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr("nas.failures.resource.getrlimit", lambda kind: tight.get(kind, free))
    status, lines = ended(lambda: None)
    assert status == 5 and len(lines) == 1 and "limited to 300 MB" in lines[0] and "ulimit" in lines[0]

    def report() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x")  # it was called, for it needs no torch

    assert "No space left" in ended(report)[1][0]


def test_torch_asks_for_too_much():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert "the memory ran out" in str(machine_failure(caught.value))


def test_a_failure_is_found_behind_other_errors():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "x")
        except OSError as error:
            raise ValueError("the writer is unhappy") from error
    except ValueError as error:
        assert "No space left" in str(machine_failure(error))
    assert machine_failure(ValueError("x")) is None


def test_faults_of_ours_are_not_hidden():
    app = typer.Typer()
    app.command()(guarded(raising(KeyError("x"))))
    assert isinstance(CliRunner().invoke(app, []).exception, KeyError)


def test_a_full_disk_says_how_to_resume(tmp_path, monkeypatch):
    def work() -> None:
        with running.working({"command": "search"}, None, tmp_path / "run") as run:
            monkeypatch.setattr(os, "write", full)
            run.append_trial({"number": 0})

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    status, lines = ended(work)
    monkeypatch.undo()
    assert status == 5 and "trials.jsonl' cannot be read or written (No space left on device); free some space" in lines[-1]
    assert lines[-1].endswith(f"resume with: nas search --resume --out {tmp_path / 'run'}")
    assert RunDir.read(tmp_path / "run").trials() == []


def test_export_on_a_full_disk_is_no_failed_verification(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x.pt2"))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MachineFailed, match="No space left"):
        write_format("pt2", torch.nn.Flatten().eval(), torch.zeros(1, 1, 2, 2), tmp_path / "x.pt2")


def test_export_that_fails_otherwise_is_a_failed_verification(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(VerificationFailed, match="export to pt2 failed"):
        write_format("pt2", Odd().eval(), torch.zeros(1, 1, 2, 2), tmp_path / "x.pt2")


@pytest.mark.parametrize("leave", [[], ["trials.jsonl"]])
def test_a_run_that_disappears_is_not_made_again_half(tmp_path, leave):
    with RunDir.create("search", {}, out=tmp_path / "run") as run:
        run.append_trial({"number": 0})
        for path in list(run.path.iterdir()):
            if path.name not in leave:
                path.unlink()
        if not leave:
            shutil.rmtree(run.path)
        before = sorted(p.name for p in tmp_path.rglob("*"))
        writes = (
            lambda: run.append_trial({"number": 1}),
            lambda: run.write_text("report.html", "x"),
            lambda: run.save_checkpoint("supernet", b"x", {"step": 1}),
            lambda: run.create_within("baseline", "baseline", {}),
        )
        for write in writes:
            with pytest.raises(MachineFailed, match="disappeared while it was used"):
                write()
        assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_links_that_lead_out_of_a_run_are_not_followed(tmp_path):
    (tmp_path / "precious").mkdir()
    with RunDir.create("search", {}, out=tmp_path / "run") as run:
        (run.path / "best").symlink_to(tmp_path / "precious")
        with pytest.raises(CorruptRun, match="leads out of the run directory"):
            run.write_text("best/front.svg", "x")
    assert not list((tmp_path / "precious").iterdir())


# -- interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_one_line(number):
    def work() -> None:
        signal.raise_signal(number)

    assert ended(work) == (130, ["nas: interrupted"])


def test_what_a_library_makes_of_an_interruption_is_one_too():
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemError("error return without exception set") from None

    assert ended(work) == (130, ["nas: interrupted"])


def test_an_interruption_within_a_destructor_comes_again():
    class Late:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work() -> None:
        late = Late()
        del late
        for _ in range(10**9):
            signal.sigtimedwait([], 0.001)

    assert ended(work) == (130, ["nas: interrupted"])


def test_worker_processes_leave_signals_to_the_command():
    with interruptible():
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_handlers_are_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)], sys.unraisablehook
    ended(raising(KeyboardInterrupt()))
    assert ([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)], sys.unraisablehook) == before


def test_an_interruption_while_the_command_is_imported_is_one_line():
    code = (
        "import os, signal, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from nas.cli.start import main\n"
        "main()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert (result.returncode, result.stderr) == (130, "nas: interrupted\n")


def test_whole_files_name_the_file_that_could_not_be_written(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError) as caught:
        files.replace(tmp_path / "x", b"1")
    assert caught.value.errno == errno.EISDIR and sorted(p.name for p in tmp_path.iterdir()) == ["x"]
