"""What a delivered ONNX file needs beside it to be used: how its images are prepared, its labels, and a script that runs it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.onnx_io import annotate

SCRIPT, LABELS, ONNX = "predict.py", "labels.txt", "model.onnx"
COLORS = {1: "L", 3: "RGB"}
# alpha is laid on this, in training too
BACKGROUND = (255, 255, 255)


def preprocessing_of(data: Mapping[str, Any], side: int) -> dict[str, Any]:
    """What images go through before a network that reads `side` x `side` of them: `data` is what config.json has of the data.

    Upright as colors of 8 bits, what is transparent on the background; the shorter side resized (bilinear, antialiased) and
    the centre cut out; divided by 255, minus the mean, by the standard deviation; resized to the network's side.
    """
    return {
        "color": COLORS.get(data["channels"], ""),
        "channels": data["channels"],
        "background": list(BACKGROUND),
        "shorter_side": data["resolution"],
        "center_crop": data["resolution"],
        "interpolation": "bilinear, antialiased",
        "scale": "1/255",
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "side": side,
        "layout": "NCHW",
    }


def write_deployment(folder: Path, data: Mapping[str, Any], side: int) -> None:
    """Write predict.py and labels.txt beside model.onnx, and note in its metadata what predict.py reads of them."""
    names = list(data["class_names"])
    how = json.dumps(preprocessing_of(data, side))
    annotate(
        folder / ONNX,
        {
            "preprocessing": how,
            "labels": json.dumps(names),
            "mean": json.dumps(list(data["mean"])),
            "std": json.dumps(list(data["std"])),
        },
    )
    (folder / LABELS).write_text("".join(f"{' '.join(name.split())}\n" for name in names), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name(SCRIPT), folder / SCRIPT)
