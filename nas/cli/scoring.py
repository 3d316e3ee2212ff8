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


# what opens an ONNX file to score it, by the runtime that times it
OPENERS: Mapping[str, Callable[[Path], Callable[[Tensor], Tensor]]] = {"openvino": load_openvino}


def opened_in(runtime: str | None, path: Path) -> Callable[[Tensor], Tensor]:
    """Open an ONNX file in the runtime that times it, in onnxruntime where that opens none or is not known."""
    return OPENERS.get(runtime or "", load_onnx)(path)


def file_accuracy(run: Callable[[Tensor], Tensor], split: Split, data: Dataset, side: int, label: str) -> float:
    """Share of the images of `split`, normalized as `data` says and resized to `side`, whose class `run` tells."""
    right = done = 0
    with bar(label, len(split)) as shown:
        for images, labels in prepared(split, plain_batches(len(split), AT_ONCE), data, side, torch.device("cpu")):
            right += int((run(images.contiguous()).argmax(1) == labels).sum())
            done += len(labels)
            shown.update(done)
    return right / len(split)
