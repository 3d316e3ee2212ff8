"""What `nas search` delivers beside the plain network of the same budget, given the same processor time.

Runs `nas search --time` and `nas baseline --time --family` in processes of their own, one thread each, in turn, and keeps every
row in a file, so that the benchmark can be stopped and goes on where it was:

    python -m benchmarks.beat_plain --cells "fashion-mnist|2MFLOPs|3min,npz:cifar10.npz|20MFLOPs|3min" --rows rows.jsonl

A cell is DATA|BUDGET|TIME; a kind is search, search:SPACE, supernet (a search whose networks share weights), baseline, or
baseline:FAMILY. Prints a table and one JSON line. Test accuracy is read by the commands once, at their end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TEST_IMAGES = {"digits": 359}
COMMAND = [sys.executable, "-c", "from nas.cli.main import main; main()"]


def run(kind: str, cell: tuple[str, str, str], seed: int, folder: str) -> dict[str, object]:
    """One command from start to end."""
    data, budget, time = cell
    name, _, option = kind.partition(":")
    command = {"supernet": "search"}.get(name, name)
    own = ["--family" if command == "baseline" else "--space", option] if option else []
    own += ["--no-baseline"] if command == "search" else []
    own += ["--evaluate", "supernet"] if name == "supernet" else []
    flip = ["--flip"] if "cifar" in data else []
    arguments = [
        command,
        "--budget",
        budget,
        "--data",
        data,
        "--time",
        time,
        "--threads",
        "1",
        "--seed",
        str(seed),
        *own,
        *flip,
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [*COMMAND, *arguments, "--out", folder, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
    row: dict[str, object] = {"kind": kind, "data": data, "budget": budget, "time": time, "seed": seed, "cpu_s": spent}
    if result.returncode:
        return {**row, "error": result.stderr.strip().splitlines()[-1]}
    summary = json.loads(result.stdout)
    metrics = summary["best"]["metrics"]
    lengths = (json.loads(line) for line in Path(folder, "time.jsonl").read_text().splitlines())
    row["steps"] = sum(line["steps"] for line in lengths if line["stage"] == "training the delivered network")
    names = ("macs", "params", "latency_ms", "val_accuracy", "test_accuracy")
    return {
        **row,
        **{n: metrics[n] for n in names},
        "space": summary["best"]["architecture"]["space"],
        "spent": summary["time"],
    }


def error_of(accuracy: float, data: str) -> float:
    """Standard error of a test accuracy."""
    return math.sqrt(accuracy * (1 - accuracy) / TEST_IMAGES.get(data, 10_000))


def table(rows: list[dict]) -> str:
    """One line a cell and seed: the searched network, the best plain one (by validation), and all plain ones."""
    lines = [
        "| data | budget | time | seed | searched | best plain | difference | plain by family |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cells = dict.fromkeys((r["data"], r["budget"], r["time"], r["seed"]) for r in rows)
    for data, budget, time, seed in cells:
        mine = [r for r in rows if (r["data"], r["budget"], r["time"], r["seed"]) == (data, budget, time, seed)]
        plain = [r for r in mine if r["kind"].startswith("baseline") and "test_accuracy" in r]
        best = max(plain, key=lambda r: r["val_accuracy"], default=None)
        families = ", ".join(f"{r['kind'].partition(':')[2]} {r['test_accuracy']:.2%}" for r in plain)
        for r in mine:
            if not r["kind"].startswith("baseline") and "test_accuracy" in r:
                name = r["kind"].partition(":")[2] or r["kind"].removeprefix("search")
                label = f"{r['macs'] / 1e6:.2f} M{', ' + name if name else ''}"
                searched = f"{r['test_accuracy']:.2%} ± {error_of(r['test_accuracy'], data):.2%} ({label})"
                beaten = f"{best['test_accuracy']:.2%} ({best['macs'] / 1e6:.2f} M)" if best else "–"
                gain = f"{100 * (r['test_accuracy'] - best['test_accuracy']):+.2f}" if best else "–"
                lines.append(
                    f"| {data.rpartition('/')[2]} | {budget} | {time} | {seed} | {searched} | {beaten} | {gain} | {families} |"
                )
    return "\n".join(lines)


def main() -> None:
    """Run the cells that have no row yet, print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", required=True, help="DATA|BUDGET|TIME, separated by commas")
    parser.add_argument("--kinds", default="search,baseline:cnn,baseline:resnet,baseline:mobilenet")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rows", type=Path, default=Path("beat_plain.jsonl"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    done = {(r["kind"], r["data"], r["budget"], r["time"], r["seed"]) for r in rows}
    for cell in (tuple(text.split("|")) for text in options.cells.split(",")):
        for seed in map(int, options.seeds.split(",")):
            for kind in options.kinds.split(","):
                if (kind, *cell, seed) in done:
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(run(kind, cell, seed, f"{folder}/run"))  # type: ignore[arg-type]
                with options.rows.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    print(json.dumps({"benchmark": "beat_plain", "rows": rows}))


if __name__ == "__main__":
    main()
