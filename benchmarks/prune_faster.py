"""Fewer multiply-adds that are really faster: original, ours and torch-pruning's in one interleaved run of onnxruntime.

python -m benchmarks.prune_faster [cifar-resnet56 torchvision:resnet18 torchvision:resnet50 torchvision:mobilenet_v2]

Networks have random weights, which do for timing. Ours: `nas prune NETWORK --budget 50%latency` and `--budget 50%`.
torch-pruning: MetaPruner with its defaults at the same share of the multiply-adds, and at 1 / 1.11 of them.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.side_by_side import rows_of, run_nas
from benchmarks.torch_pruning_baseline import macs_of, meta_pruned
from compress.export import write_onnx
from compress.prune.pipeline import example_of
from nas.cli.sources import module_of
from nas.cost.measure import load

NETWORKS = ("cifar-resnet56", "torchvision:resnet18", "torchvision:resnet50", "torchvision:mobilenet_v2")
# the trunk of option A shortcuts, which torch-pruning maps wrongly
TRUNK = {"cifar-resnet56": tuple(f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in range(9)) + ("conv1",)}


def compared(network: str, folder: Path) -> list[dict]:
    side = 32 if network.startswith("cifar") else 224
    example = example_of((3, side, side))
    torch.manual_seed(0)
    module = module_of(network).eval()
    whole, networks = macs_of(module, example), {"original": module}
    for label, share in (("torch-pruning, half the multiply-adds", 0.5), ("torch-pruning, 1/1.11 of them", 1 / 1.11)):
        networks[label] = meta_pruned(module, example, share, TRUNK.get(network, ()))
    files, macs = {}, {label: macs_of(one, example) for label, one in networks.items()}
    for number, (label, one) in enumerate(networks.items()):
        files[label] = folder / f"{number}.onnx"
        write_onnx(one, example[:1], files[label])
    for budget in ("50%latency", "50%"):
        label, out = f"netcarver, {budget}", folder / budget.replace("%", "percent")
        files[label] = run_nas(out, "prune", network, "--budget", budget)
        macs[label] = json.loads((out / "summary.json").read_text())["best"]["metrics"]["macs"]
    about = {label: {"macs": value, "macs_share": value / whole} for label, value in macs.items()}
    return rows_of(network, files, example[:1], about)


def main(args: Sequence[str]) -> None:
    rows = []
    for network in args or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows += compared(network, Path(folder))
    print(json.dumps({"benchmark": "prune_faster", "load": load(), "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
