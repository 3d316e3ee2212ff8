"""Are budgets in ms kept? Search one supernet under several, and time each delivered ONNX file with another script.

python -m benchmarks.ms_budgets RUN FOLDER 0.2ms 0.3ms 0.4ms      RUN: a run directory with a trained supernet
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.budget import Budget
from nas.cost.measure import load

REMEASURE = Path(__file__).with_name("remeasure.py")


def searched(supernet: str, out: Path, budget: str) -> dict:
    """Run `nas search`; gives its summary, also where it says that it failed."""
    program = [sys.executable, "-c", "from nas.cli.main import main; main()"]
    options = ["--budget", budget, "--supernet", supernet, "--out", str(out), "--json", "--trials", "60"]
    done = subprocess.run([*program, "search", *options], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{budget}: nas search ended with {done.returncode}")
    return {**json.loads(done.stdout), "exit": done.returncode}


def main(args: Sequence[str]) -> None:
    supernet, folder, *budgets = args
    rows = []
    for text in budgets:
        out = Path(folder) / text
        summary = searched(supernet, out, text)
        again = subprocess.run(
            [sys.executable, str(REMEASURE), str(out / "best/model.onnx")], stdout=subprocess.PIPE, text=True, check=True
        )
        independent, metrics = json.loads(again.stdout), summary["best"]["metrics"]
        limit = Budget.parse(text).limit
        row = {"budget": text, "measured_ms": metrics["latency_ms"], "independent_ms": independent["ms"]}
        row |= {"quartiles": independent["quartiles"], "macs": metrics["macs"], "val_accuracy": metrics["val_accuracy"]}
        row |= {"kept": metrics["latency_ms"] <= limit and independent["ms"] <= limit, "exit": summary["exit"]}
        rows.append({**row, "predictions": summary["latency"], "seconds": summary["seconds"]})
        print(
            f"{text}: measured {row['measured_ms']:.4f} ms, independently {row['independent_ms']:.4f} ms, kept: {row['kept']}"
        )
    print(json.dumps({"benchmark": "ms_budgets", "supernet": supernet, "load": load(), "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
