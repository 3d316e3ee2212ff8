"""Fewer multiply-adds that are really faster: original, ours and torch-pruning's in one interleaved run of onnxruntime.

python -m benchmarks.prune_faster [cifar-resnet56 torchvision:resnet18 torchvision:resnet50 torchvision:mobilenet_v2]

Networks have random weights, which do for timing. Ours: `nas prune NETWORK --budget 50%latency` and `--budget 50%`.
torch-pruning: MetaPruner with its defaults at the same share of the multiply-adds, and at 1 / 1.11 of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.torch_pruning_baseline import macs_of, meta_pruned
from compress.export import write_onnx
from compress.prune.pipeline import example_of
from nas.cli.sources import module_of
from nas.cost.measure import MeasureSettings, load
from nas.latency.bench import Bench
from nas.runtimes.runtime import Setting

NETWORKS = ("cifar-resnet56", "torchvision:resnet18", "torchvision:resnet50", "torchvision:mobilenet_v2")
# the trunk of option A shortcuts, which torch-pruning maps wrongly
TRUNK = {"cifar-resnet56": tuple(f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in range(9)) + ("conv1",)}


def pruned(network: str, budget: str, folder: Path) -> Path:
    """Run `nas prune` as a user would; gives the ONNX file."""
    program = [sys.executable, "-c", "from nas.cli.main import main; main()"]
    options = ["--budget", budget, "--device", "cpu", "--threads", "1", "--out", str(folder)]
    done = subprocess.run([*program, "prune", network, *options], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{network} {budget}: nas prune ended with {done.returncode}")
    return folder / "best/model.onnx"


def compared(network: str, folder: Path) -> list[dict]:
    side = 32 if network.startswith("cifar") else 224
    example = example_of((3, side, side))
    torch.manual_seed(0)
    module = module_of(network).eval()
    whole, networks = macs_of(module, example), {"original": module}
    for label, share in (("torch-pruning, half the multiply-adds", 0.5), ("torch-pruning, 1/1.11 of them", 1 / 1.11)):
        networks[label] = meta_pruned(module, example, share, TRUNK.get(network, ()))
    files, macs = {}, {}
    for number, (label, one) in enumerate(networks.items()):
        files[label], macs[label] = folder / f"{number}.onnx", macs_of(one, example)
        write_onnx(one, example[:1], files[label])
    for label, budget in (("netcarver, 50%latency", "50%latency"), ("netcarver, 50%", "50%")):
        out = folder / budget.replace("%", "percent")
        files[label] = pruned(network, budget, out)
        macs[label] = json.loads((out / "summary.json").read_text())["best"]["metrics"]["macs"]
    times = Bench("onnxruntime", Setting(), MeasureSettings(rounds=30)).time_files({p: example[:1] for p in files.values()})
    base = times[files["original"]].ms
    rows = []
    for label, path in files.items():
        timing = times[path]
        row = {"network": network, "variant": label, "macs": macs[label], "macs_share": macs[label] / whole}
        row |= {"ms": timing.ms, "spread_ms": timing.spread_ms, "time_share": timing.ms / base, "machine": timing.machine}
        rows.append(row)
        print(
            f"{network:26} {label:40} {row['macs_share']:7.1%} of the multiply-adds, {timing.ms:8.3f} ms "
            f"(IQR {timing.spread_ms:.3f}), {row['time_share']:6.1%} of the time, {1 / row['time_share']:.2f}x",
            flush=True,
        )
    return rows


def main(args: Sequence[str]) -> None:
    rows = []
    for network in args or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows += compared(network, Path(folder))
    print(json.dumps({"benchmark": "prune_faster", "load": load(), "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
