"""Files of several variants of one network, timed in one interleaved run of onnxruntime, as rows of a table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.cost.measure import MeasureSettings
from nas.latency.bench import Bench
from nas.runtimes.runtime import Setting

ROUNDS = 30
# the command, of the interpreter that runs the benchmark
NAS = (sys.executable, "-c", "from nas.cli.main import main; main()")


def run_nas(folder: Path, *args: str) -> Path:
    """Run a command of `nas` as a user would, on one thread, with the run directory `folder`; gives the ONNX file."""
    options = ["--device", "cpu", "--threads", "1", "--out", str(folder)]
    done = subprocess.run([*NAS, *args, *options], stdout=subprocess.PIPE, text=True)
    if done.returncode == 4:  # the row of a network that breaks its budget belongs into the table, too
        print(f"nas {' '.join(args)}: verification failed, or a budget is broken", flush=True)
    elif done.returncode:
        raise SystemExit(f"nas {' '.join(args)} ended with {done.returncode}")
    return folder / "best/model.onnx"


def rows_of(
    network: str, files: Mapping[str, Path], example: Tensor, about: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Time and print one row a file, with its time as a share of the first one's; `about` has what else is known of each."""
    times = Bench("onnxruntime", Setting(), MeasureSettings(rounds=ROUNDS)).time_files(dict.fromkeys(files.values(), example))
    base = next(times[path].ms for path in files.values())
    rows = []
    for label, path in files.items():
        timing, size = times[path], path.stat().st_size
        row = {"network": network, "variant": label, "ms": timing.ms, "spread_ms": timing.spread_ms, "bytes": size}
        row |= {"time_share": timing.ms / base, "machine": timing.machine, **about.get(label, {})}
        rows.append(row)
        shares = "".join(f", {value:.1%} of the {name}" for name, value in _shares(row).items())
        print(
            f"{network:26} {label:40} {timing.ms:8.3f} ms (IQR {timing.spread_ms:.3f}), {row['time_share']:6.1%} of the time, "
            f"{base / timing.ms:.2f}x{shares}",
            flush=True,
        )
    return rows


def _shares(row: Mapping[str, Any]) -> dict[str, float]:
    names = {"macs_share": "multiply-adds", "size_share": "size"}
    return {text: row[name] for name, text in names.items() if name in row}
