"""int8 that is really faster: fp32, onnxruntime's own quantizer and ours, in one interleaved run of onnxruntime.

python -m benchmarks.quantize_faster [torchvision:resnet18 timm:deit_tiny_patch16_224 ...]

Networks have random weights, which do for timing. Ours: `nas quantize NETWORK`. onnxruntime's: quantize_static of the exported
file after quant_pre_process, QDQ, weights per channel. 224 pixels (CIFAR ResNets: 32), batch 1, one thread.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.side_by_side import rows_of, run_nas
from compress.export import write_onnx
from nas.cli.sources import module_of
from nas.cost.measure import load
from nas.runtimes.ort import quantized

NETWORKS = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "torchvision:mobilenet_v3_large",
    "timm:tf_efficientnet_lite0",
    "torchvision:convnext_tiny",
    "timm:deit_tiny_patch16_224",
)


def compared(network: str, folder: Path) -> list[dict]:
    side = 32 if network.startswith("cifar") else 224
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    files = {"fp32": folder / "fp32.onnx", "onnxruntime's quantizer": folder / "own.onnx"}
    write_onnx(module_of(network).eval(), example, files["fp32"])
    files["onnxruntime's quantizer"].write_bytes(quantized(files["fp32"].read_bytes(), example.numpy()))
    files["nas quantize"] = run_nas(folder / "run", "quantize", network, "--calibration", "min-max")
    whole = files["fp32"].stat().st_size
    return rows_of(network, files, example, {label: {"size_share": p.stat().st_size / whole} for label, p in files.items()})


def main(args: Sequence[str]) -> None:
    rows = []
    for network in args or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows += compared(network, Path(folder))
    print(json.dumps({"benchmark": "quantize_faster", "load": load(), "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
