"""What a machine with a GPU is asked once: the main job, a budget in ms, pruning and quantization on CUDA, in under 8 minutes.

    python -m benchmarks.gpu_check --out gpu.json

Runs `nas search` on generated 224-pixel images by multiply-adds and by measured ms, `nas prune` and `nas quantize` of
ResNet-50, and compares the peak memory of a training step with the sum of its activations. Each part has a time limit; one that
fails is recorded with the last line of its error, and the others go on. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nas.cost.counting import count
from nas.latency.machine import device_name
from nas.supernet.supernet import Supernet
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

COMMAND = [sys.executable, "-c", "from nas.cli.main import main; main()"]
CLASSES, SIDE, TRAIN, TEST = 10, 224, 2000, 200
BATCH = 64


def write_images(path: Path) -> None:
    """Stripes of ten directions in noise: learnable within a minute."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1)
    arrays: dict[str, np.ndarray] = {}
    for part, number in (("train", TRAIN), ("test", TEST)):
        labels = np.arange(number) % CLASSES
        angles = labels * np.pi / CLASSES + rng.normal(0, 0.05, number)
        waves = np.stack([np.sin((grid @ np.array([np.cos(a), np.sin(a)])) / 6) for a in angles])
        images = 128 + 60 * waves[..., None] + rng.normal(0, 30, (number, SIDE, SIDE, 3))
        arrays |= {f"{part}_images": images.clip(0, 255).astype(np.uint8), f"{part}_labels": labels}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def command(arguments: list[str], seconds: int) -> dict[str, object]:
    """Run one command with --json; what its summary says, or how it failed."""
    began = time.monotonic()
    try:
        done = subprocess.run([*COMMAND, *arguments, "--json"], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"took more than {seconds} s"}
    row: dict[str, object] = {"ok": done.returncode == 0, "seconds": round(time.monotonic() - began, 1)}
    if done.returncode:
        return {**row, "status": done.returncode, "error": done.stderr.strip().splitlines()[-1:]}
    summary = json.loads(done.stdout)
    return {**row, "budget": summary.get("budget"), "metrics": summary["best"]["metrics"], "time": summary.get("time", {})}


def peak_memory(device: torch.device) -> dict[str, float]:
    """Bytes of a training step of the largest network at 300 MFLOPs, measured, and as its activations say."""
    from nas.budget import parse_all

    family = SPACES["mobilenet"]
    space = sized(family, DataShape(3, SIDE, CLASSES), parse_all(("300MFLOPs",)), family.options())
    supernet, largest = Supernet(space, 0).to(device), space.largest()
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device).contiguous(memory_format=torch.channels_last)
    torch.cuda.reset_peak_memory_stats(device)
    F.cross_entropy(supernet(images, largest), torch.zeros(BATCH, dtype=torch.int64, device=device)).backward()
    torch.cuda.synchronize(device)
    values = count(space.plan(largest)).values()
    # the output of each convolution is kept twice: before its norm, and after it
    predicted = 2 * 4 * BATCH * values["activations"] + 3 * 4 * values["params"]
    return {"measured_bytes": float(torch.cuda.max_memory_allocated(device)), "predicted_bytes": float(predicted)}


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(2, "gpu_check: torch finds no CUDA device; run this on a machine with a GPU\n")
    device = torch.device("cuda", 0)
    result: dict[str, object] = {"benchmark": "gpu_check", "device": device_name(device), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "stripes.npz"
        write_images(data)
        own = ["--data", f"npz:{data}", "--device", "cuda"]
        parts = {
            "search by multiply-adds": (["search", "--budget", "300MFLOPs", "--time", "90s", *own], 150),
            "search with a supernet": (
                ["search", "--budget", "300MFLOPs", "--space", "mobilenet", "--epochs", "2", "--trials", "4", *own],
                120,
            ),
            "search by ms": (["search", "--budget", "1ms", "--space", "resnet", "--epochs", "1", "--trials", "4", *own], 120),
            "prune resnet50": (["prune", "resnet50", "--budget", "60%", "--device", "cuda"], 90),
            "quantize resnet50": (["quantize", "resnet50", "--device", "cuda"], 90),
        }
        for name, (arguments, seconds) in parts.items():
            result[name] = command([*arguments, "--out", f"{folder}/{name.replace(' ', '-')}"], seconds)
            print(f"{name:<26} {json.dumps(result[name])[:150]}", file=sys.stderr, flush=True)
    result["memory"] = peak_memory(device)
    options.out.write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
