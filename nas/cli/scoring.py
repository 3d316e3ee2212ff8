"""The accuracy of an exported file, run in its runtime on all images of a split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nas.cli.progress import bar
from nas.data.dataset import Dataset, Split, plain_batches
from nas.evaluation.supernet import prepared

AT_ONCE = 64


def file_accuracy(run: Callable[[Tensor], Tensor], split: Split, data: Dataset, side: int, label: str) -> float:
    """Share of the images of `split`, normalized as `data` says and resized to `side`, whose class `run` tells."""
    right = done = 0
    with bar(label, len(split)) as shown:
        for images, labels in prepared(split, plain_batches(len(split), AT_ONCE), data, side, torch.device("cpu")):
            right += int((run(images.contiguous()).argmax(1) == labels).sum())
            done += len(labels)
            shown.update(done)
    return right / len(split)
