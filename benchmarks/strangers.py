"""Follow the inputs of strangers through the command line to their end: delivered, refused in one line, or a fault.

    python -m benchmarks.strangers --cases ../shared/cases
    python -m benchmarks.strangers --only networks/0 own/

Runs `nas prune`, `nas quantize` and `nas search` in processes of their own on the networks and data of --cases and on those of
benchmarks/strange_networks.py and strange_data.py (`own/`), with random weights and few epochs. What is delivered is
looked at again: the budget, the right multiply-adds of the original where the cases tell them, the exported file at batches of
1 and 3 in onnxruntime, and the accuracy of what can be learned. Prints a row for each case and a line of JSON. Half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks import strange_data
from benchmarks.strange_networks import NETWORKS, QUANTIZED, SHAPE

HERE = Path(__file__).resolve().parent
# multiply-adds of the original, by torch.utils.flop_counter / 2 or by hand
RIGHT = {
    "01": 20_677_888,
    "02": 11_992_448,
    "04": 25_084_064,
    "05": 9_659_008,
    "09": 5_440_128,
    "11": 11_601_152,
    "12": 7_299_712,
    "14": 8_073_856,
    "15": 3_760_768,
    "17": 15_041_152,
    "22": 1_401_472,
    "28": 2_212_160,
    "33": 976_640,
    "37": 8_259_904,
    "41": 14_451_456,
    "62": 8_626_816,
}
ALLOCATIONS = ("uniform", "global", "isomorphic", "rd")
DELIVERED, REFUSED, FAULT = "delivered", "refused", "fault"
REFUSALS = (2, 3)  # exit status
LEARNED = 0.9
_IN_QUANTIZE = """
plain cat_bias gain_bias SameStride Stem7 Shuffle Twice attn Act PreNorm Conv1 WS BufBias TiedBias TiedNorm MHA Recur Moe
squeezer by_size reshaped double half pair dict_out
"""


@dataclass(frozen=True)
class Case:
    """A command, the folder that it is run in, and what is looked at afterwards: a fault in words, or nothing."""

    name: str
    command: tuple[str, ...]
    folder: Path
    check: Callable[[Path], str]


@dataclass(frozen=True)
class Outcome:
    """What came of a case; `line` is what was refused, or what is wrong."""

    name: str
    kind: str
    line: str
    seconds: float
    megabytes: float


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=HERE.parent.parent / "shared" / "cases")
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of names, or their beginnings")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that a case may take")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home, outcomes = Path(name), list[Outcome]()
        for case in cases(asked.cases, home):
            if any(fnmatch(case.name, pattern) or case.name.startswith(pattern) for pattern in asked.only):
                outcomes.append(followed(case, home, asked.limit))
                print(row(outcomes[-1]), flush=True)
    print(json.dumps(totals(outcomes)))


def totals(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How many ended in which way, and the names of the faults."""
    counts = {kind: sum(one.kind == kind for one in outcomes) for kind in (DELIVERED, REFUSED, FAULT)}
    return {"cases": len(outcomes), **counts, "faults": [one.name for one in outcomes if one.kind == FAULT]}


def row(outcome: Outcome) -> str:
    """A line of the table."""
    told = f"{outcome.name:<34} {outcome.kind:<10} {outcome.seconds:6.1f} s {outcome.megabytes:7.0f} MB"
    return f"{told}  {outcome.line}".rstrip()


# -- cases


def cases(folder: Path, home: Path) -> Iterator[Case]:
    """Those of `folder`, if it is there, and our own; data are written to `home`."""
    if folder.is_dir():
        yield from _given_networks(folder / "networks")
        yield from _given_quantized(folder / "quantize")
        yield from _arrows(folder / "data", home)
    for name, made in NETWORKS.items():
        yield Case(f"own/prune/{name}", _prune(made, SHAPE), home, checked(None))
    for name in QUANTIZED:
        yield Case(f"own/quantize/{name}", _quantize(NETWORKS[name]), home, checked(None))
    yield from _own_data(home)


def _given_networks(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        shape = next((line.partition("=")[2].strip("\"' ") for line in lines if line.startswith("SHAPE")), SHAPE)
        check = checked(RIGHT.get(path.name[:2]))
        yield Case(f"networks/{path.stem}", _prune(f"{path.stem}:make", shape), folder, check)
        if path.name.startswith("03"):
            for name in ALLOCATIONS:
                command = _prune(f"{path.stem}:make", shape, "50%", "--allocation", name)
                yield Case(f"networks/{path.stem}, {name}", command, folder, check)


def _given_quantized(folder: Path) -> Iterator[Case]:
    for name in _IN_QUANTIZE.split():
        yield Case(f"quantize/{name}", _quantize(f"networks:{name}"), folder, checked(None))


def _arrows(folder: Path, home: Path) -> Iterator[Case]:
    subprocess.run([sys.executable, str(folder / "arrows.py")], cwd=home, check=True)
    for name in ("lr", "ud"):
        command = ("search", "--budget", "0.3MFLOPs", "--data", f"npz:{name}.npz", "--epochs", "8", "--trials", "6")
        yield Case(f"data/{name}", command, home, checked(None, LEARNED))


def _own_data(home: Path) -> Iterator[Case]:
    for name, write in strange_data.DATA.items():
        source = write(home / f"data-{name}")
        command = ("search", "--budget", "0.3MFLOPs", "--data", source, "--resolution", "16", "--epochs", "8", "--trials", "6")
        yield Case(f"own/data/{name}", command, home, checked(None, LEARNED))


def _prune(network: str, shape: str, budget: str = "60%", *more: str) -> tuple[str, ...]:
    return ("prune", f"python:{network}", "--shape", shape, "--budget", budget, *more)


def _quantize(network: str) -> tuple[str, ...]:
    return ("quantize", f"python:{network}", "--shape", SHAPE)


# -- following one


def followed(case: Case, home: Path, limit: float) -> Outcome:
    """Run a case to its end, or for `limit` seconds, and look at what it delivered."""
    out = Path(tempfile.mkdtemp(dir=home)) / "run"
    status, text, seconds, megabytes = _ran((*case.command, "--out", str(out), "--threads", "1"), case.folder, limit)
    kind, line = judged(status, text, lambda: case.check(out))
    return Outcome(case.name, kind, line, seconds, megabytes)


def judged(status: int | None, text: str, check: Callable[[], str]) -> tuple[str, str]:
    """The outcome by exit status (None: time is up) and what was said; `check` looks at what was delivered."""
    lines = text.strip().splitlines()
    last = lines[-1] if lines else "nothing was said"
    if status is None:
        return FAULT, f"time is up; the last line: {last}"
    if "Traceback" in text:
        return FAULT, f"traceback: {last}"
    if status in REFUSALS and last.startswith("nas: error: "):
        return REFUSED, last.removeprefix("nas: error: ")
    if status != 0:
        return FAULT, f"exit status {status}: {last}"
    wrong = check()
    return (FAULT, wrong) if wrong else (DELIVERED, "")


def _ran(command: Sequence[str], folder: Path, limit: float) -> tuple[int | None, str, float, float]:
    """Exit status (None where time is up), all that was said, seconds, and the most memory in MB."""
    start = time.monotonic()
    code = "from nas.cli.start import main; main()"
    paths = [str(folder), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timer = threading.Timer(limit, process.kill)
        timer.start()
        _, ended, used = os.wait4(process.pid, 0)
        late = not timer.is_alive()
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(ended)
        said.seek(0)
        text = said.read()
    return None if late else process.returncode, text, time.monotonic() - start, used.ru_maxrss / 1024


# -- looking at what was delivered


def checked(macs: int | None, accuracy: float = 0.0) -> Callable[[Path], str]:
    """What looks at a run: the multiply-adds of its original, and its test accuracy, must be right."""

    def look(run: Path) -> str:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        return "; ".join(filter(None, _wrong(run, summary, macs, accuracy)))

    return look


def _wrong(run: Path, summary: Mapping[str, Any], macs: int | None, accuracy: float) -> Iterable[str]:
    if not summary["verified"] or not all(budget["ok"] for budget in summary["budget"]):
        yield "what was delivered is not verified, or breaks the budget, and the exit status is 0"
    if macs is not None and summary["original"]["metrics"]["macs"] != macs:
        yield f"{summary['original']['metrics']['macs']:,.0f} multiply-adds were counted, {macs:,} are right"
    if (found := summary["best"]["metrics"].get("test_accuracy", 1.0)) < accuracy:
        yield f"test accuracy {found:.1%}, at least {accuracy:.0%} is right"
    yield _file_fault(run / "best" / "model.onnx")


def _file_fault(path: Path) -> str:
    """What is wrong with an exported file at batches of 1 and 3: both must give the same first row, in finite numbers."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    images = np.random.default_rng(0).standard_normal((3, *image.shape[1:]), dtype=np.float32)
    three = session.run(None, {image.name: images})[0]
    one = session.run(None, {image.name: images[:1]})[0]
    if three.shape[0] != 3 or not np.isfinite(three).all():
        return f"the file gives {three.shape} for three images, or no finite numbers"
    # of integers a value may be rounded to its neighbour
    same = np.abs(three[:1] - one).max() <= 0.05 * max(1e-6, float(np.abs(one).max()))
    return "" if same else "the file answers otherwise for one image than for three"


if __name__ == "__main__":
    main()
