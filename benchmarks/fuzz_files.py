"""Mutate files of every kind that is read outside of run directories, and read them as the commands do.

    python -m benchmarks.fuzz_files --inputs 2000 --seed 7

As in benchmarks/fuzz.py a reader may take an input or refuse it in one line; everything else is counted and shown. Each kind
has a valid file, mutated in its bytes, in its text, or (ONNX, JSON, TOML) in its fields.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fuzz import Reader, bytes_changed, outcome
from benchmarks.mutations import Mutate, json_changed, onnx_changed, table_changed, text_changed

RECIPE = b"""network = "cifar-resnet20"
data = "digits"
threads = 1
shape = "3x32x32"
[[pass]]
name = "prune"
budget = ["70%", "5ms"]
steps = 2
least = 0.1
max_drop = 1.5
finetune_epochs = 0
[[pass]]
name = "fine-tune"
finetune_epochs = 2
lr = 0.01
[[pass]]
name = "quantize"
keep = ["first=8"]
images = 64
"""


@dataclass(frozen=True)
class Kind:
    """The name of a file, its valid content, how it is mutated, and what reads it."""

    name: str
    content: bytes
    mutate: Mutate
    read: Reader


# -- the kinds


def kinds(home: Path) -> dict[str, Kind]:
    """All kinds by name; data are written to `home` once."""
    from nas.cli.recipe import read_recipe
    from nas.cost.counting import count
    from nas.cost.onnx_plan import onnx_plan
    from nas.data.config import DataConfig
    from nas.data.load import load
    from nas.latency.proxyless import read_proxyless
    from nas.latency.table import read_table

    images = _images(home)
    return {
        "recipe": Kind("x.toml", RECIPE, text_changed, read_recipe),
        "npz": Kind("x.npz", _npz(home), bytes_changed, lambda path: load(DataConfig(f"npz:{path}")).load_test()),
        "csv": Kind("x.csv", images, text_changed, lambda path: load(DataConfig(f"csv:{path}", resolution=8))),
        "image": Kind("folder/a/0.png", _png(), bytes_changed, lambda path: load(_folder(path))),
        "onnx": Kind("x.onnx", _onnx(), onnx_changed, lambda path: count(onnx_plan(path, (3, 16, 16)))),
        "table": Kind("table.csv", _table(home), table_changed, read_table),
        "proxyless": Kind("proxyless.csv", PROXYLESS, text_changed, lambda path: read_proxyless(path, _target())),
        "safetensors": Kind("x.safetensors", _safetensors(), bytes_changed, _read_weights),
        "weights": Kind("x.pt", _pt(home), bytes_changed, _read_weights),
        "architecture": Kind("x.json", _architecture(), json_changed, _read_network),
    }


def attack(kind: Kind, home: Path, inputs: int, seed: int) -> Counter[str]:
    """Read mutations of a kind's file; the number of outcomes by what they are."""
    rng, found = random.Random(seed), Counter[str]()
    path = home / kind.name
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(inputs):
        path.write_bytes(kind.mutate(kind.content, rng))
        found[outcome(kind.read, path, kind.name)] += 1
    path.write_bytes(kind.content)
    assert outcome(kind.read, path, kind.name) == "taken", f"{kind.name} is not valid"
    return found


PROXYLESS = b"""key,mean_ms,var,count
Conv-input:224x224x3-output:112x112x32,3.5,0.1,10
expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0,2.5,0.1,10
"""


def _read_weights(path: Path) -> object:
    from compress.prune.checkpoints import read_content

    return read_content(path)


def _read_network(path: Path) -> object:
    from nas.cli.sources import read_network
    from nas.cost.counting import count

    return count(read_network(str(path)).plan)


def _folder(path: Path):  # noqa: ANN202
    from nas.data.config import DataConfig

    return DataConfig(f"imagefolder:{path.parents[1]}", resolution=8)


def _arrays() -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(12) % 3
    return {"train_images": images, "train_labels": labels, "test_images": images[:3], "test_labels": labels[:3]}


def _npz(home: Path) -> bytes:
    np.savez(home / "valid.npz", **_arrays(), class_names=np.array(["a", "b", "c"]))
    return (home / "valid.npz").read_bytes()


def _png() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _images(home: Path) -> bytes:
    """Image folders of two classes, and a CSV file that lists them."""
    rows = ["file,label,split"]
    for number in range(12):
        name = f"folder/{'ab'[number % 2]}/{number}.png"
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(_png())
        rows.append(f"{name},{'ab'[number % 2]},{'test' if number > 7 else 'train'}")
    return "\n".join(rows).encode() + b"\n"


def _onnx() -> bytes:
    import onnx

    from nas.onnx_io import to_bytes
    from nas.onnx_values import Graph, Node

    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "dw": (8, 1, 3, 3), "k": (1, 8, 1, 1), "fc.weight": (10, 8)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["to"] = np.array([1, -1], np.int64)
    pads = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    nodes = (
        Node("Conv", ("x", "w", "b"), ("a",), {**pads, "strides": (2, 2)}, "first"),
        Node("Relu", ("a",), ("r",)),
        Node("Conv", ("r", "dw"), ("d",), {**pads, "group": 8}),
        Node("HardSigmoid", ("d",), ("g",)),
        Node("Mul", ("d", "g"), ("h",)),
        Node("Add", ("h", "r"), ("i",)),
        Node("Mul", ("i", "k"), ("j",)),
        Node("MaxPool", ("j",), ("p",), {"kernel_shape": (2, 2), "strides": (2, 2)}),
        Node("GlobalAveragePool", ("p",), ("q",)),
        Node("Reshape", ("q", "to"), ("f",)),
        Node("Gemm", ("f", "fc.weight"), ("out",), {"transB": 1}),
    )
    model = onnx.load_model_from_string(to_bytes(Graph(nodes, tensors, {"x": (1, 3, 16, 16)}, ("out",))))
    relu = onnx.helper.make_node("Relu", ["X"], ["Y"])
    model.functions.append(onnx.helper.make_function("own", "F", ["X"], ["Y"], [relu], [onnx.helper.make_opsetid("", 20)]))
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = "F", "own"
    return bytes(model.SerializeToString())


def _target():  # noqa: ANN202
    from nas.latency.target import Target

    return Target("Abacus", "onnxruntime", "1", "fp32", 1, 1)


def _table(home: Path) -> bytes:
    from nas.latency.table import Calibration, Entry, LatencyTable, write_table

    entries = {f"unit {n}": Entry(0.5 + n, 0.01, 10, 5, None, "") for n in range(3)}
    calibration = (Calibration({"sum_ms": 2.0, "units": 3.0}, 2.2, "resnet@1"),)
    write_table(LatencyTable(_target(), entries, calibration, {"when": "today"}, "x"), home / "valid.csv")
    return (home / "valid.csv").read_bytes()


def _safetensors() -> bytes:
    import torch

    from nas import weights

    return weights.to_bytes({"conv.weight": torch.zeros(4, 3, 3, 3), "conv.bias": torch.zeros(4)})


def _pt(home: Path) -> bytes:
    import torch

    torch.save({"state_dict": {"conv.weight": torch.zeros(4, 3, 3, 3)}, "epoch": 3, "best": 0.5}, home / "valid.pt")
    return (home / "valid.pt").read_bytes()


def _architecture() -> bytes:
    from search_spaces import SPACES
    from search_spaces.staged import DataShape

    family = SPACES["resnet"]
    space = family.make(DataShape(3, 16, 10), family.macros[-1], 0.6, family.options())
    settings = {"name": space.name, "version": space.version, "settings": space.settings}
    return json.dumps({**space.smallest().to_json(), "definition": settings}).encode()


def main() -> None:
    """Attack each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=None)
    asked = parser.parse_args()
    start, total = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        found: Mapping[str, Kind] = kinds(Path(name))
        for kind in asked.only or found:
            counts = attack(found[kind], Path(name), asked.inputs, asked.seed)
            print(f"{kind:12} {counts['taken']:6} taken {counts['refused']:6} refused", flush=True)
            for text, count in counts.most_common():
                if text not in ("taken", "refused"):
                    print(f"{count:6}  {text}", flush=True)
            total += counts
    wrong = sum(count for text, count in total.items() if text not in ("taken", "refused"))
    print(json.dumps({"inputs": total.total(), "wrong": wrong, "seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
