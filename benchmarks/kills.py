"""Kill commands at random moments and resume them: they must end with what an uninterrupted run ends with, times aside.

    python -m benchmarks.kills --kills 60

Prints a row for each command and one JSON line. Needs nothing but this machine; takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RECIPE = """
network = "cifar-resnet20"
data = "npz:images.npz"
device = "cpu"
threads = 1
[[pass]]
name = "prune"
budget = "70%"
finetune_epochs = 1
[[pass]]
name = "quantize"
precision = "w8a8"
"""
FLAGS = ("--data", "npz:images.npz", "--device", "cpu", "--threads", "1")
COMMANDS = {
    "search": (
        *("search", "--budget", "300kFLOPs", "--space", "resnet", "--epochs", "2", "--trials", "8"),
        *("--train-precision", "fp32", *FLAGS),  # by itself the faster one is taken, as measured
    ),
    "prune": ("prune", "cifar-resnet20", "--sweep", "50,70%", "--finetune-epochs", "1", *FLAGS),
    "quantize": ("quantize", "cifar-resnet20", "--method", "qat", "--finetune-epochs", "1", *FLAGS),
    "compress": ("compress", "--recipe", "recipe.toml"),
}
MOST_RESUMES = 100
# what tells of times, of this process, or of the path of the run
TIMES = (
    "seconds",
    "latency_ms",
    "ratio",
    "context",
    "spread",
    "argv",
    "latency_spread",
    "timed",
    "measured_ms",
    "predicted_ms",
    "estimate",
    "step_ms",
    "time",
)
KINDS = (".json", ".jsonl")
# how long the processes of a run took, a line each
OF_TIMES = "time.jsonl"


def main() -> None:
    """Kill each command some times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(COMMANDS), default=list(COMMANDS))
    asked = parser.parse_args()
    rng, total, different = random.Random(asked.seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_data(home)
        for command in asked.only:
            kills, found = _compared(home, command, -(-asked.kills // len(asked.only)), rng)
            print(f"{command:10} {kills:3} kills, {len(found)} differences {'; '.join(found[:3])}", flush=True)
            total, different = total + kills, different + len(found)
    print(json.dumps({"kills": total, "differences": different}))


def _compared(home: Path, command: str, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kills that were done, and what differs at the end."""
    start = time.monotonic()
    whole = home / f"{command}-whole"
    assert _run(home, COMMANDS[command], "--out", str(whole)).wait() in (0, 4), f"{command} does not end by itself"
    usual, done, found = time.monotonic() - start, 0, list[str]()
    for number in range(kills):
        if done >= kills:
            break
        killed = home / f"{command}-{number}"
        done += _killed_until_done(home, command, killed, lambda: rng.uniform(0.1, 1.1 * usual), kills - done)
        found += [f"{killed.name}: {text}" for text in differences(whole, killed)]
    return done, found


def _killed_until_done(home: Path, command: str, out: Path, moment: Any, most: int) -> int:  # noqa: ANN401 - a function
    """Start, kill and resume; returns how often it was killed, at most `most` times."""
    for kills in range(MOST_RESUMES):
        started = (out / "config.json").is_file()
        args = (command, "--resume") if started else COMMANDS[command]
        process = _run(home, args, "--out", str(out))
        try:
            process.wait(moment() if kills < most else None)
            return kills
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    raise AssertionError(f"{command} does not end")


def _run(home: Path, args: Sequence[str], *more: str) -> subprocess.Popen[bytes]:
    code = "from nas.cli.start import main; main()"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "NETCARVER_TABLES": str(home / "tables")}
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-c", code, *args, *more]
    return subprocess.Popen(command, cwd=home, env=env, stdout=quiet, stderr=quiet, start_new_session=True)


def differences(whole: Path, killed: Path) -> Iterator[str]:
    """Files that only one run has, and records that differ."""
    ours, theirs = ({str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} for run in (whole, killed))
    yield from (f"{name} is in one of both" for name in sorted(ours ^ theirs) if not _is_numbered(name))
    for name in sorted(n for n in ours & theirs if n.endswith(KINDS)):
        a, b = (_plain(run, name) for run in (whole, killed))
        if a != b:
            yield f"{name} differs"
    for name in sorted(n for n in ours & theirs if n.endswith(".safetensors") and "checkpoint" not in n):
        if (whole / name).read_bytes() != (killed / name).read_bytes():
            yield f"{name} differs"


def _is_numbered(name: str) -> bool:
    """Checkpoints are numbered by how often they were written, which depends on the time."""
    return "checkpoint" in name or name.endswith((".lock", ".pdf"))


def _plain(run: Path, name: str) -> Any:  # noqa: ANN401 - JSON
    """The records of a file without times and paths; of checkpoints nothing, for their numbers are those of files."""
    text = (run / name).read_text().replace(str(run), "RUN")
    if "checkpoint" in name or name.endswith(OF_TIMES):
        return None
    values = [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)
    return _without_times(values)


def _without_times(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        hashed = ("files",)  # digests of files that hold times, such as quantization.json
        return {n: _without_times(v) for n, v in value.items() if n not in (*TIMES, *hashed) and not _is_time(v)}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def _is_time(value: object) -> bool:
    return isinstance(value, dict) and value.get("unit") == "ms"


def write_data(home: Path) -> None:
    """The images and the recipe that the commands read."""
    import numpy as np  # only here

    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    images = (rng.random((400, 16, 16, 3)) * 60 + labels[:, None, None, None] * 45).astype(np.uint8)
    arrays = {"train_images": images[:320], "train_labels": labels[:320]}
    arrays |= {"test_images": images[320:], "test_labels": labels[320:]}
    np.savez(home / "images.npz", **arrays)
    (home / "recipe.toml").write_text(RECIPE)


if __name__ == "__main__":
    main()
