"""What a network answered on a split: its accuracy, that of each class, and which classes it takes for which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from nas.accuracy import standard_error
from nas.data.dataset import Dataset, Split
from nas.evaluation.supernet import whole

# of more classes no matrix is written, only what is confused most
MATRIX, CONFUSED = 100, 20


@dataclass(frozen=True, eq=False)
class Answers:
    """The class of each image of a split and the one that was told: both int64 (N,), of so many classes."""

    true: np.ndarray
    told: np.ndarray
    classes: int

    @property
    def accuracy(self) -> float:
        """Share of right answers, in 0..1."""
        return float((self.true == self.told).mean())

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """What summary.json has: accuracy with its standard error, by class, and the confusion matrix.

        `balanced` is the mean over classes that have images. Rows of `confusion` are the true classes; `confused` are the
        pairs (true, told, images) that are mistaken most.
        """
        images = np.bincount(self.true, minlength=self.classes)
        right = np.bincount(self.true[self.true == self.told], minlength=self.classes)
        rows = [_row(name, int(n), int(r)) for name, n, r in zip(names, images, right, strict=True)]
        found: dict[str, Any] = {
            "value": self.accuracy,
            "standard_error": standard_error(self.accuracy, len(self.true)),
            "images": len(self.true),
            "balanced": float(np.mean([row["accuracy"] for row in rows if row["images"]])),
            "per_class": rows,
            "confused": self._confused(names),
        }
        return {**found, "confusion": self.matrix().tolist()} if self.classes <= MATRIX else found

    def matrix(self) -> np.ndarray:
        """Images by true and told class, int64 (classes, classes)."""
        pairs = np.bincount(self.true * self.classes + self.told, minlength=self.classes**2)
        return pairs.reshape(self.classes, self.classes)

    def _confused(self, names: Sequence[str]) -> list[list[Any]]:
        wrong = self.true != self.told
        pairs, counts = np.unique(self.true[wrong] * self.classes + self.told[wrong], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:CONFUSED]
        return [[names[pairs[i] // self.classes], names[pairs[i] % self.classes], int(counts[i])] for i in most]


def collected(batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> Answers:
    """Answers from batches of told and true classes, int64 (B,) each."""
    told, true = (torch.cat(parts).cpu().numpy() for parts in zip(*batches, strict=True))
    return Answers(true, told, classes)


@torch.no_grad()
def answers_of(module: nn.Module, split: Split, data: Dataset, resolution: int) -> Answers:
    """What a module answers on a split, in fp32; its accuracy is that of nas.evaluation.supernet.accuracy."""
    module.eval()
    device = next(module.parameters()).device
    batches = whole(split, data, resolution, device)
    return collected(((module(images).argmax(1).cpu(), labels.cpu()) for images, labels in batches), data.classes)


def _row(name: str, images: int, right: int) -> dict[str, Any]:
    if not images:
        return {"name": name, "images": 0, "right": 0}
    share = right / images
    return {"name": name, "images": images, "right": right, "accuracy": share, "standard_error": standard_error(share, images)}
