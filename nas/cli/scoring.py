"""The accuracy of an exported file, run in its runtime on all images of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from compress.export import load_onnx
from compress.more_formats import load_openvino
from nas.cli.progress import bar
from nas.data.dataset import Dataset, Split, plain_batches
from nas.evaluation.supernet import prepared

AT_ONCE = 64
ONNXRUNTIME = "onnxruntime"


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


def file_accuracy(run: Callable[[Tensor], Tensor], split: Split, data: Dataset, side: int, label: str) -> float:
    """Share of the images of `split`, normalized as `data` says and resized to `side`, whose class `run` tells."""
    right = done = 0
    with bar(label, len(split)) as shown:
        for images, labels in prepared(split, plain_batches(len(split), AT_ONCE), data, side, torch.device("cpu")):
            right += int((run(images.contiguous()).argmax(1) == labels).sum())
            done += len(labels)
            shown.update(done)
    return right / len(split)
