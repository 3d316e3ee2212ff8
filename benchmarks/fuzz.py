"""Mutate valid files of every kind that netcarver reads, and read them: nothing may execute, hang or end in a traceback.

    python -m benchmarks.fuzz --inputs 20000 --seed 7

A reader may refuse an input with an error of ours (one line, nas/errors.py) or take it. Everything else is counted and shown.
The tests run fewer inputs of it (tests/test_fuzz.py).
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.errors import NasError

# what takes the place of a value: each type, ends of ranges, texts that lead out of a folder or into a page
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 2**63, -(10**400), 0.5, -1.5, 1e308, float("nan"), float("inf"), "", "x", "../../x",
    "/etc/passwd", "</script><b>", "python:os:abort", "\ud800", "\x00", [], {}, [1, 2, 3], ["x"], [None], {"x": 1},
    {"__missing__": None},
)  # fmt: skip
SLOW = 10.0  # seconds
Reader = Callable[[Path], object]


def mutated(content: bytes, name: str, rng: random.Random) -> bytes:
    """One change of a file: of a value where it is JSON, else of its bytes."""
    if name.endswith(".json") and rng.random() < 0.85:
        return json.dumps(changed(json.loads(content), rng)).encode()
    if name.endswith(".jsonl") and content and rng.random() < 0.85:
        lines = content.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(changed(json.loads(lines[at]), rng)).encode()
        return b"\n".join(lines) + b"\n"
    return bytes_changed(content, rng)


def changed(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one of its parts replaced, left out, added, or nested."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    if not places:
        return rng.choice(VALUES)
    parent, name = rng.choice(places)
    kind = rng.random()
    if kind < 0.25:
        del parent[name]
    elif kind < 0.3 and isinstance(parent, dict):
        parent[rng.choice(["x", "", "../x", "__class__"])] = rng.choice(VALUES)
    elif kind < 0.34:
        for _ in range(rng.choice([3, 600])):
            parent[name] = [parent[name]]
    else:
        parent[name] = copy.deepcopy(rng.choice(VALUES))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for name, item in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, name
        yield from _places(item)


def bytes_changed(content: bytes, rng: random.Random) -> bytes:
    """Bytes cut off, turned over, doubled or put in."""
    at = rng.randrange(len(content) + 1)
    kinds = (
        lambda: content[:at],
        lambda: content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
        lambda: content[:at] + content[at : at + 50] + content[at:],
        lambda: content[:at] + bytes(rng.randrange(256) for _ in range(8)) + content[at:],
        lambda: b"",
    )
    return rng.choice(kinds)()


def attack(folder: Path, readers: Mapping[str, Reader], inputs: int, seed: int) -> Counter[str]:
    """Mutate one file of a copy of `folder` at a time and read the copy; the number of outcomes by what they are.

    A reader is tried in turn on each; `taken` and `refused` are right, all else is not.
    """
    rng, found = random.Random(seed), Counter[str]()
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and readable(p))
    with tempfile.TemporaryDirectory() as aside:
        copy_of = Path(aside) / "work" / folder.name
        shutil.copytree(folder, copy_of)
        before = {p: p.stat().st_mtime_ns for p in _outside(copy_of)}
        for number in range(inputs):
            name, reader = rng.choice(names), list(readers)[number % len(readers)]
            path = copy_of / name
            content = path.read_bytes()
            path.write_bytes(mutated(content, name, rng))
            try:
                found[outcome(readers[reader], copy_of, f"{reader} {name}")] += 1
            finally:
                path.write_bytes(content)
            if {p: p.stat().st_mtime_ns for p in _outside(copy_of)} != before:
                found[f"{reader} {name}: wrote outside"] += 1
    return found


def readable(path: Path) -> bool:
    """Whether a file is one that readers look at."""
    return path.suffix in (".json", ".jsonl", ".csv", ".pt2", ".onnx", ".safetensors", ".toml") and ".tmp" not in path.name


def _outside(run: Path) -> list[Path]:
    return [path for path in run.parent.rglob("*") if run not in (path, *path.parents)]


def outcome(reader: Reader, run: Path, label: str) -> str:
    """`taken`, `refused`, or what went wrong with its place."""
    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader(run)
        result = "taken"
    except NasError as error:
        result = "refused" if "\n" not in str(error) else f"{label}: several lines: {error}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "/nas/" in f.filename or "/compress/" in f.filename]
        place = f"{Path((ours or [frame])[-1].filename).name}:{(ours or [frame])[-1].lineno}"
        result = f"{label.partition(' ')[0]}: {type(error).__name__} at {place}: {str(error)[:80]}"
    return result if time.monotonic() - start < SLOW else f"{label}: slow"


def readers() -> dict[str, Reader]:
    """What reads a run directory without a network of the user's own."""
    from nas.cli.diffing import compared, read_side
    from nas.cli.watch_text import line
    from nas.cli.watching import Looker
    from nas.report.contents import read_contents
    from nas.report.write import report_files
    from nas.rundir import RunDir

    def diff(run: Path) -> object:
        side = read_side(run)
        return json.dumps(compared(side, side))

    def watch(run: Path) -> object:
        look = Looker(RunDir.read(run))()
        return line(look), json.dumps(look.to_json())

    return {
        "report": lambda run: report_files(read_contents(RunDir.read(run))),
        "watch": watch,
        "diff": diff,
    }


def main() -> None:
    """Attack the given run directories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories, whole ones")
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    start, found = time.monotonic(), Counter[str]()
    for run in asked.runs:
        found += attack(run, readers(), asked.inputs, asked.seed)
    for text, count in found.most_common():
        print(f"{count:6}  {text}")
    wrong = sum(count for text, count in found.items() if text not in ("taken", "refused"))
    print(json.dumps({"inputs": found.total(), "wrong": wrong, "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
