"""Judging a subnet as it is delivered: extract it, recalibrate its batch norms, evaluate the plain module."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nas.architecture import Architecture
from nas.data.augment import normalize, resize
from nas.data.dataset import Dataset, Split, epoch_batches, images_at_once, plain_batches
from nas.supernet.supernet import Supernet
from nas.training.calibration import recalibrate
from nas.training.loop import number

CALIBRATION_IMAGES = 2048
BATCH = 256


class SupernetEvaluator:
    """Evaluator: architecture -> val_accuracy (0..1) and val_loss (cross-entropy), from the supernet's weights."""

    def __init__(self, supernet: Supernet, data: Dataset, seed: int) -> None:
        self.supernet, self.data, self.seed = supernet, data, seed

    def __call__(self, arch: Architecture) -> dict[str, float]:
        """Extract, recalibrate on training images, evaluate on the validation split."""
        right, loss = judge(self.deliver(arch), self.data.val, self.data, resolution_of(arch))
        return {"val_accuracy": right, "val_loss": loss}

    def plain(self, arch: Architecture) -> nn.Module:
        """Extract `arch` with norms that are not recalibrated, for timing its files."""
        return self.supernet.extract(arch)

    def deliver(self, arch: Architecture) -> nn.Module:
        """Extract `arch` as a plain module in evaluation mode, with recalibrated norms."""
        module = self.supernet.extract(arch)
        calibrate(module, self.data, resolution_of(arch), self.seed)
        return module


def resolution_of(arch: Architecture) -> int:
    """Side of the images that `arch` reads."""
    return int(arch.choices["resolution"])


def calibrate(module: nn.Module, data: Dataset, resolution: int, seed: int, most: int = CALIBRATION_IMAGES) -> None:
    """Recalibrate the batch norms on a fixed draw of about `most` training images without augmentation."""
    device = next(module.parameters()).device
    size = min(images_at_once(resolution, BATCH, device), len(data.train))
    wanted = epoch_batches(len(data.train), size, seed, 0)[: max(1, most // size)]
    recalibrate(module, (x for x, _ in prepared(data.train, wanted, data, resolution, device)))


@torch.no_grad()
def judge(module: nn.Module, split: Split, data: Dataset, resolution: int) -> tuple[float, float]:
    """Share of correct predictions, in 0..1, and mean cross-entropy over a split, in fp32."""
    module.eval()
    device, right, loss = next(module.parameters()).device, 0.0, 0.0
    for images, labels in whole(split, data, resolution, device):
        logits, truth = module(images), labels.to(device)
        right += number((logits.argmax(1) == truth).sum())
        loss += number(F.cross_entropy(logits, truth, reduction="sum"))
    return right / len(split), loss / len(split)


def whole(split: Split, data: Dataset, resolution: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """All images of a split in order, as `prepared` yields them, and their labels."""
    size = images_at_once(resolution, BATCH, device)
    return prepared(split, plain_batches(len(split), size), data, resolution, device)


def accuracy(module: nn.Module, split: Split, data: Dataset, resolution: int) -> float:
    """Share of correct predictions, in 0..1, in fp32."""
    return judge(module, split, data, resolution)[0]


def prepared(
    split: Split, batches: list[Tensor], data: Dataset, resolution: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalized, resized images on the device, with their labels."""
    for images, labels in split.batches(batches):
        yield resize(normalize(images, data.mean, data.std, device), resolution), labels
