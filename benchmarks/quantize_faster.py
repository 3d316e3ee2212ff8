"""int8 that is really faster: fp32, onnxruntime's own quantizer and ours, in one interleaved run of onnxruntime.

python -m benchmarks.quantize_faster [torchvision:resnet18 torchvision:resnet50 torchvision:mobilenet_v2]

Networks have random weights, which do for timing. Ours: `nas quantize NETWORK`. onnxruntime's: quantize_static of the exported
file after quant_pre_process, QDQ, weights per channel. 224 pixels (CIFAR ResNets: 32), batch 1, one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from compress.export import write_onnx
from nas.cli.sources import module_of
from nas.cost.measure import MeasureSettings, load
from nas.latency.bench import Bench
from nas.runtimes.ort import quantized
from nas.runtimes.runtime import Setting

NETWORKS = ("torchvision:resnet18", "torchvision:resnet50", "torchvision:mobilenet_v2")


def ours(network: str, folder: Path) -> Path:
    """Run `nas quantize` as a user would; gives the ONNX file."""
    program = [sys.executable, "-c", "from nas.cli.main import main; main()"]
    options = ["--device", "cpu", "--threads", "1", "--calibration", "min-max", "--out", str(folder)]
    done = subprocess.run([*program, "quantize", network, *options], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{network}: nas quantize ended with {done.returncode}")
    return folder / "best/model.onnx"


def compared(network: str, folder: Path) -> list[dict]:
    side = 32 if network.startswith("cifar") else 224
    example = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    files = {"fp32": folder / "fp32.onnx", "onnxruntime's quantizer": folder / "own.onnx"}
    write_onnx(module_of(network).eval(), example, files["fp32"])
    files["onnxruntime's quantizer"].write_bytes(quantized(files["fp32"].read_bytes(), example.numpy()))
    files["nas quantize"] = ours(network, folder / "run")
    times = Bench("onnxruntime", Setting(), MeasureSettings(rounds=30)).time_files({p: example for p in files.values()})
    base, size = times[files["fp32"]].ms, files["fp32"].stat().st_size
    rows = []
    for label, path in files.items():
        timing, share = times[path], path.stat().st_size / size
        row = {"network": network, "variant": label, "ms": timing.ms, "spread_ms": timing.spread_ms}
        row |= {"speedup": base / timing.ms, "bytes": path.stat().st_size, "size_share": share, "machine": timing.machine}
        rows.append(row)
        print(
            f"{network:26} {label:26} {timing.ms:8.3f} ms (IQR {timing.spread_ms:.3f}), {base / timing.ms:.2f}x, "
            f"{share:.1%} of the size",
            flush=True,
        )
    return rows


def main(args: Sequence[str]) -> None:
    rows = []
    for network in args or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            rows += compared(network, Path(folder))
    print(json.dumps({"benchmark": "quantize_faster", "load": load(), "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1:])
