"""Run commands on a full disk and in too little memory: each failure is one line with exit status 5, and can be resumed.

    python -m benchmarks.exhausted

A command runs in a file system of a fixed size (a tmpfs; needs root on Linux), at sizes below what its run directory takes;
then the file system is made larger, and the run is resumed to its end. Likewise with less memory than it needs (RLIMIT_DATA).
A fault is another exit status, more than one line of error, a traceback, a run that cannot be resumed, or one that ends with
other networks than an uninterrupted one. Prints a row for each command and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kills import COMMANDS, differences, write_data

FAILED, DONE = 5, (0, 4)
# of what an uninterrupted run takes on the disk, and of the memory that one has
DISKS = (0.02, 0.15, 0.3, 0.45, 0.6, 0.8, 0.95)
MEMORIES = (0.15, 0.25, 0.35, 0.45, 0.55, 0.7, 0.85, 0.95)
SPARE = 1 << 20  # bytes that any file system needs for itself
SECONDS = 600


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    error: str

    @property
    def fault(self) -> str:
        """What is wrong with it, empty for an end and for a failure that is told in one line."""
        lines = [line for line in self.error.splitlines() if line.startswith("nas: error")]
        if "Traceback" in self.error:
            return "a traceback"
        if self.status in DONE:
            return ""
        if self.status != FAILED:
            return f"status {self.status}: {self.error.strip().splitlines()[-1:]}"
        return "" if len(lines) == 1 else f"{len(lines)} lines of error"


def run(home: Path, args: Sequence[str], memory: int | None = None) -> Outcome:
    """Run a command of `nas` in `home`, with a limit on its memory."""

    def limited() -> None:
        if memory:
            resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "NETCARVER_TABLES": str(home / "tables")}
    command = [sys.executable, "-c", "from nas.cli.start import main; main()", *args]
    try:
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, preexec_fn=limited, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Outcome(-1, f"no end after {SECONDS} s")
    return Outcome(done.returncode, done.stderr)


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `folder`."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def enlarge(folder: Path) -> None:
    """Give a file system more space than anything here takes."""
    subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: where it is, the bytes that it takes on the disk, and the most memory that it had (VmData)."""

    path: Path
    size: int
    memory: int


def uninterrupted(home: Path, command: str) -> Whole:
    """Run a command once without limits, and look at what it takes."""
    out, most = home / f"{command}-whole", 0
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "NETCARVER_TABLES": str(home / "tables")}
    args = [sys.executable, "-c", "from nas.cli.start import main; main()", *COMMANDS[command], "--out", str(out)]
    process = subprocess.Popen(args, cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, _memory(process.pid))
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    if process.returncode not in DONE:
        raise SystemExit(f"nas {command} ended with {process.returncode} without any limit")
    return Whole(out, sum(p.stat().st_size for p in out.rglob("*") if p.is_file()), most)


def _memory(pid: int) -> int:
    with suppress(OSError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmData")), 0)
    return 0


def resumed(home: Path, command: str, out: Path, whole: Whole) -> list[str]:
    """What is wrong with the run after it was resumed without limits, or begun again where nothing of it was left."""
    begun = (out / "config.json").is_file()
    if not begun:
        shutil.rmtree(out, ignore_errors=True)
    done = run(home, [command, "--resume", "--out", str(out)] if begun else [*COMMANDS[command], "--out", str(out)])
    if done.status not in DONE:
        return [f"not resumed, status {done.status}: {done.error.strip().splitlines()[-1:]}"]
    return list(differences(whole.path, out))


def full_disks(home: Path, command: str, whole: Whole) -> Iterator[str]:
    """What is wrong at each size of the disk."""
    for share in DISKS:
        folder = home / f"{command}-disk-{share}"
        with disk(folder, SPARE + int(share * whole.size)):
            out = folder / "run"
            failed = run(home, [*COMMANDS[command], "--out", str(out)])
            enlarge(folder)
            faults = [failed.fault] if failed.fault else []
            yield from (f"disk {share:.0%}: {text}" for text in faults + resumed(home, command, out, whole))


def little_memory(home: Path, command: str, whole: Whole) -> Iterator[str]:
    """What is wrong at each limit of the memory."""
    for share in MEMORIES:
        out = home / f"{command}-memory-{share}"
        failed = run(home, [*COMMANDS[command], "--out", str(out)], int(share * whole.memory))
        faults = [failed.fault] if failed.fault else []
        yield from (f"memory {share:.0%}: {text}" for text in faults + resumed(home, command, out, whole))


def main() -> None:
    """Exhaust the disk and the memory of each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--of", nargs="*", choices=["disk", "memory"], default=["disk", "memory"])
    asked, rows = parser.parse_args(), []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_data(home)
        for command in asked.only:
            whole = uninterrupted(home, command)
            for kind, tried, sizes in (("disk", full_disks, DISKS), ("memory", little_memory, MEMORIES)):
                if kind in asked.of:
                    faults = list(tried(home, command, whole))
                    needed = whole.size if kind == "disk" else whole.memory
                    rows.append({"command": command, "of": kind, "needs": needed, "tried": len(sizes), "faults": faults})
                    print(
                        f"{command:10} {kind:7} of {needed / 1e6:8.1f} MB: {len(sizes)} sizes, {len(faults)} faults", flush=True
                    )
                    for text in faults:
                        print(f"  {text}", flush=True)
    print(json.dumps({"benchmark": "exhausted", "rows": rows}))


if __name__ == "__main__":
    main()
