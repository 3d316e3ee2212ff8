"""The accuracy of an exported file, run in its runtime on all images of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.export import load_onnx
from compress.more_formats import load_openvino
from nas.accuracy import standard_error
from nas.cli.progress import bar
from nas.data.dataset import Dataset, Split, images_at_once, plain_batches
from nas.evaluation.answers import Answers, collected
from nas.evaluation.supernet import prepared
from nas.report.words import show

AT_ONCE = 64
ONNXRUNTIME = "onnxruntime"
VAL, TEST = "val_accuracy", "test_accuracy"


# what opens an ONNX file in a precision to score it, by the runtime that times it; that of integers is in the file
OPENERS: Mapping[str, Callable[[Path, str], Callable[[Tensor], Tensor]]] = {
    ONNXRUNTIME: lambda path, precision: load_onnx(path),
    "openvino": load_openvino,
}


def scored_in(runtime: str | None) -> str:
    """The runtime that scores what `runtime` times: itself, onnxruntime where that opens no ONNX file or is not known."""
    return runtime if runtime and runtime in OPENERS else ONNXRUNTIME


def opened_in(runtime: str | None, path: Path, precision: str = "fp32") -> Callable[[Tensor], Tensor]:
    """Open an ONNX file in the runtime that scores it."""
    return OPENERS[scored_in(runtime)](path, precision)


def file_answers(run: Callable[[Tensor], Tensor], split: Split, data: Dataset, side: int, label: str) -> Answers:
    """What `run` answers on all images of `split`, normalized as `data` says and resized to `side`."""
    cpu = torch.device("cpu")
    index = plain_batches(len(split), images_at_once(side, AT_ONCE, cpu))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        done = 0
        for images, labels in prepared(split, index, data, side, cpu):
            yield run(images.contiguous()).argmax(1).cpu(), labels.cpu()
            done += len(labels)
            progress.update(done)

    with bar(label, len(split)) as progress:
        return collected(batches(), data.classes)


def accuracy_of(test: Answers | None) -> dict[str, float]:
    """The test accuracy as a metric, where it is known."""
    return {} if test is None else {TEST: test.accuracy}


def scores_row(data: Dataset | None, scores: Mapping[str, float], test: Answers | None) -> dict[str, Any]:
    """What a summary has of a delivered network's accuracies: standard errors, test images by class; {} without data."""
    if data is None:
        return {}
    found: dict[str, Any] = {}
    if VAL in scores:
        images = len(data.val)
        error = standard_error(scores[VAL], images)
        found[VAL] = {"value": scores[VAL], "standard_error": error, "images": images}
    if test is not None:
        found[TEST] = test.to_json(data.class_names)
    return {"scores": found}


def shown(row: Mapping[str, Any], name: str) -> str:
    """A metric of a network of the summary, an accuracy with its standard error."""
    error = row.get("standard_errors", {}).get(name)
    return show(name, row["metrics"][name]) + (f" ± {show(name, error)}" if error is not None else "")


def with_errors(summary: dict[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The summary with the standard errors of all its accuracies, beside the metrics of each network."""
    images = {VAL: config.get("data", {}).get("val"), TEST: summary.get("scores", {}).get(TEST, {}).get("images")}

    def told(row: dict[str, Any]) -> dict[str, Any]:
        known = {name: count for name, count in images.items() if count and name in row["metrics"]}
        return {**row, "standard_errors": {name: standard_error(row["metrics"][name], count) for name, count in known.items()}}

    single: dict[str, Any] = {name: told(summary[name]) for name in ("best", "original") if name in summary}
    several = {"front": [told(row) for row in summary["front"]]} if "front" in summary else {}
    return {**summary, **single, **several}
