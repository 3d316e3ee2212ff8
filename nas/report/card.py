"""The model card of a delivered network, in the layout of the Hugging Face Hub: https://huggingface.co/docs/hub/model-cards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from nas.accuracy import with_error
from nas.report.augmentation import augmentation_words
from nas.report.contents import Network, metric_names
from nas.report.contents import network as network_of
from nas.report.markdown import block, line, section, table, text, verdict
from nas.report.picture import PICTURE, front_picture
from nas.report.words import name_of, plain, provenance, show

Json = Mapping[str, Any]
# what a command does to the network that it was given
MADE = {"prune": "pruned", "quantize": "quantized"}
# names that the folder of test images may have, in lower case
TEST_FOLDERS = ("test", "testing", "val", "validation", "valid", "dev", "eval")
_TAGS = ("image-classification", "neural-architecture-search", "netcarver", "onnx", "pytorch")


def model_card(summary: Json, config: Json, verify: Json) -> str:
    """Write best/README.md from the contents of summary.json, config.json and best/verify.json.

    What they do not hold is left out, but for a budget whose value is not known: that one is broken.
    """
    best = network_of(summary["best"])
    sections = [
        _head(summary, config),
        f"# {text(best.key)}\n\n{_opening(summary, config)}",
        _picture(summary),
        section("Budget", _budget_table(summary.get("budget", ()))),
        section("Metrics", _metric_table(summary, verify)),
        section("How to use", _using(summary, config)),
        section("How to load", _loading(best, config.get("data", {}))),
        section("Input and output", _input(best, config.get("data", {}))),
        section("Architecture", _architecture(best.choices)),
        section("Verification", _checks(verify)),
        section("How it was made", _made(summary, config)),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


# -- sections


def _head(summary: Json, config: Json) -> str:
    """The metadata; JSON values are YAML too, which keeps text from outside in its place."""
    lines = [
        "---",
        "license: unknown  # choose one before you publish the network",
        "library_name: pytorch",
        "pipeline_tag: image-classification",
        f"tags: {json.dumps(_TAGS)}",
        'metrics: ["accuracy"]',
    ]
    test = summary["best"]["metrics"].get("test_accuracy")
    data = config.get("data", {}).get("name")
    if test is not None and data is not None:
        name = json.dumps(data)
        lines += [
            "model-index:",
            f"- name: {json.dumps(summary['best']['key'])}",
            "  results:",
            '  - task: {"type": "image-classification"}',
            f'    dataset: {{"name": {name}, "type": {name}}}',
            f'    metrics: [{{"type": "accuracy", "value": {json.dumps(test)}, "name": "test accuracy"}}]',
        ]
    return "\n".join([*lines, "---"])


def _opening(summary: Json, config: Json) -> str:
    data, metrics = config.get("data", {}), summary["best"]["metrics"]
    about = f" trained on {text(data['name'])}" if data.get("name") else ""
    numbers = [f"{show('macs', metrics['macs'])} (multiply-adds)"] if "macs" in metrics else []
    scores = ("val_accuracy", "test_accuracy")
    numbers += [f"{_scored(summary, m, metrics[m])} {name_of(m)}" for m in scores if m in metrics]
    slower = f"\n\nIt is not faster: {text(summary['slower'])}." if summary.get("slower") else ""
    return f"An image classifier{about}, {_origin(summary, config)} by netcarver: {', '.join(numbers)}.{slower}"


def _origin(summary: Json, config: Json) -> str:
    if "original" not in summary:
        return "carved out of a supernet"
    made = "handed over unchanged" if summary.get("unchanged") else MADE.get(str(config.get("command")), "made")
    return f"{made} from {text(summary['original']['name'])}"


def _picture(summary: Json) -> str:
    """A reference to the picture that the report writes beside the card."""
    return f"![place of the network on the front]({PICTURE})" if front_picture(summary) else ""


def _budget_table(budgets: Sequence[Json]) -> str:
    rows = [
        [b["text"], name_of(b["metric"]), show(b["metric"], b["limit"]), show(b["metric"], b.get("value")), verdict(b["ok"])]
        for b in budgets
    ]
    return table(("budget", "limits", "limit", "value", "verdict"), rows)


def _metric_table(summary: Json, verify: Json) -> str:
    best, taken = network_of(summary["best"]), verify.get("metrics", {})
    rows = [[name_of(m), _scored(summary, m, best.metrics[m]), provenance(m, taken.get(m))] for m in metric_names([best])]
    return table(("metric", "value", "how it was taken"), rows)


def _using(summary: Json, config: Json) -> str:
    """What predict.py does, and how the accuracy of this card is taken again with it."""
    data = config.get("data", {})
    if not data.get("class_names"):
        return ""
    told = (
        "```\npip install onnxruntime numpy pillow\npython predict.py photo.jpg folder/\n```\n\n"
        "tells the classes of image files. What they go through (upright, RGB, shorter side, centre, mean, standard deviation) "
        "and the names of the classes are in the metadata of `model.onnx`, under `preprocessing` and `labels`; `labels.txt` "
        "has a class a line."
    )
    if "test_accuracy" not in summary["best"]["metrics"]:
        return told
    kind, _, place = str(data.get("name", "")).partition(":")
    accuracy = f"the test accuracy, {show('test_accuracy', summary['best']['metrics']['test_accuracy'])}"
    if not _is_scored(kind, place):
        return f"{told}\n\n`nas verify RUN` takes {accuracy}, again."
    return f"{told}\n\n```\npython predict.py --score {quote(line(place))}\n```\n\ngives {accuracy}."


def _is_scored(kind: str, place: str) -> bool:
    """Whether predict.py finds the test images: a file or a folder has them by itself, and they were not split off by us."""
    if kind != "imagefolder":
        return kind == "npz"
    folder = Path(place)
    return folder.is_dir() and any(path.is_dir() and path.name.lower() in TEST_FOLDERS for path in folder.iterdir())


def _scored(summary: Json, metric: str, value: float) -> str:
    """An accuracy with its standard error."""
    images = summary.get("scores", {}).get(metric, {}).get("images")
    return with_error(value, images, 1) if images else show(metric, value)


def _loading(best: Network, data: Json) -> str:
    """Code that runs as it stands beside the files; both parts share `images`."""
    shape = _shape(best, data)
    images = f"np.zeros((1, {shape}), np.float32)" if shape else "..."
    normalize = ""
    if {"mean", "std"} <= set(data):
        mean, std = (json.dumps(list(data[name])) for name in ("mean", "std"))
        normalize = f"images = (images - np.float32({mean}).reshape(-1, 1, 1)) / np.float32({std}).reshape(-1, 1, 1)\n"
    onnx = (
        "import numpy as np\nimport onnxruntime\n\n"
        f"images = {images}  # your images, (N, {shape or 'C, H, W'}) in 0..1\n{normalize}"
        'session = onnxruntime.InferenceSession("model.onnx")\nlogits = session.run(["logits"], {"images": images})[0]\n'
    )
    pt2 = (
        "import torch\n\n"
        'model = torch.export.load("model.pt2").module()\n'
        "with torch.no_grad():\n    logits = model(torch.from_numpy(images))\n"
    )
    return (
        f"```python\n{onnx}```\n\nor, with the same `images`, in PyTorch:\n\n```python\n{pt2}```\n\n"
        "`model.safetensors` holds the weights alone, for the network that `architecture.json` describes."
    )


def _input(best: Network, data: Json) -> str:
    lines = []
    shape = _shape(best, data)
    if shape:
        lines.append(f"- `images`: float32 (N, {shape}), any N; resize other images before (bilinear, antialiased)")
    if {"mean", "std"} <= set(data):
        lines.append(
            f"- values: 0..1, then minus the mean {json.dumps(list(data['mean']))}, "
            f"divided by the standard deviation {json.dumps(list(data['std']))}, channel by channel"
        )
    if data.get("class_names"):
        lines.append(f"- `logits`: float32 (N, {len(data['class_names'])}), of the classes in this order:")
        # a fenced block of one JSON line: nothing in it can end the block
        lines.append(f"\n```json\n{json.dumps(list(data['class_names']), ensure_ascii=False)}\n```")
    return "\n".join(lines)


def _shape(best: Network, data: Json) -> str:
    """Shape of one image as the network reads it; it chooses its own resolution where its space has that choice."""
    side = best.choices.get("resolution", data.get("resolution"))
    return f"{data['channels']}, {side}, {side}" if "channels" in data and side else ""


def _architecture(choices: Mapping[str, object]) -> str:
    """A row for each part of the network; `s0.b1.kernel` is the choice `kernel` of part `s0.b1`."""
    parts: dict[str, list[str]] = {}
    for name, value in choices.items():
        part, _, choice = name.rpartition(".")
        parts.setdefault(part or "network", []).append(f"{choice} {value}")
    return table(("part", "choices"), [[part, ", ".join(values)] for part, values in parts.items()])


def _checks(verify: Json) -> str:
    rows = [
        [c["name"], plain(c["value"]), "passed" if c["ok"] else "**failed**", c["detail"]] for c in verify.get("checks", ())
    ]
    return table(("check", "value", "verdict", "detail"), rows)


def _made(summary: Json, config: Json) -> str:
    data, device, space = (config.get(name, {}) for name in ("data", "device", "space"))
    known = {
        "data": data.get("name"),
        "training images": augmentation_words(config.get("augmentation", {})),
        "data fingerprint": data.get("fingerprint"),
        "search space": " version ".join(str(space[n]) for n in ("name", "version") if n in space),
        "seed": config.get("seed"),
        "device": device.get("name") or device.get("type"),
        "versions": ", ".join(f"{name} {number}" for name, number in config.get("versions", {}).items()),
        "trials": summary.get("trials"),
    }
    facts = "\n".join(f"- {name}: {text(value)}" for name, value in known.items() if value not in (None, ""))
    command = block(config["argv"]) if "argv" in config else ""
    return "\n\n".join(part for part in (command, facts) if part)
