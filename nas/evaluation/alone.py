"""Judging a network without a supernet: train it alone for a short time, and evaluate it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn as nn

from nas.architecture import Architecture, SearchSpace
from nas.data.augment import Augmentation
from nas.data.dataset import Dataset, Subset
from nas.evaluation.supernet import calibrate, judge, resolution_of
from nas.seeding import derive
from nas.supernet.supernet import initialize
from nas.torch_seeding import generator
from nas.training.loop import Checkpoints, TrainConfig, train
from nas.training.objectives import at_resolution, classification


@dataclass(frozen=True)
class Lesson:
    """What a network is trained on, and how: all that a training alone takes besides the network."""

    data: Dataset
    augmentation: Augmentation
    config: TrainConfig
    smoothing: float = 0.0

    def shape(self, side: int) -> tuple[int, int, int, int]:
        """Shape (N, C, side, side) of a batch of its training images, resized to `side`."""
        batch = min(self.config.batch_size, len(self.data.train))
        return (batch, self.data.channels, side, side)


def fresh(space: SearchSpace, arch: Architecture, seed: int, device: torch.device) -> nn.Module:
    """The plain module of `arch` with weights drawn from the seed and its key."""
    module = space.network(arch)
    initialize(module, derive(seed, "alone", arch.key))
    return module.to(device)


class AloneEvaluator:
    """Evaluator: architecture -> val_accuracy (0..1) and val_loss, after a short training of each network alone.

    `lesson.config.steps` is the length of that training; the training loop is the one that every network is trained with.
    """

    def __init__(self, space: SearchSpace, lesson: Lesson, seed: int, device: torch.device) -> None:
        self.space, self.lesson, self.seed, self.device = space, lesson, seed, device

    def __call__(self, arch: Architecture) -> dict[str, float]:
        """Train briefly, recalibrate, evaluate on the validation split."""
        data = self.lesson.data
        right, loss = judge(self.deliver(arch), data.val, data, resolution_of(arch))
        return {"val_accuracy": right, "val_loss": loss}

    def plain(self, arch: Architecture) -> nn.Module:
        """The network before any training, for timing its files."""
        return fresh(self.space, arch, self.seed, self.device)

    def deliver(self, arch: Architecture) -> nn.Module:
        """The briefly trained network in evaluation mode, with recalibrated norms."""
        module = self.plain(arch)
        teach(module, self.lesson, resolution_of(arch))
        calibrate(module, self.lesson.data, resolution_of(arch), self.seed)
        return module


def teach(module: nn.Module, lesson: Lesson, side: int) -> None:
    """Train `module` in place on images of `side` pixels; its norms are not recalibrated."""
    objective = classification(at_resolution(module, side), lesson.smoothing)
    for _ in train(module, objective, lesson.data, lesson.augmentation, lesson.config, Checkpoints()):
        pass


def some_of(data: Dataset, images: int, seed: int) -> Dataset:
    """The data with at most `images` validation images, a fixed draw, for comparisons that need not be exact."""
    if len(data.val) <= images:
        return data
    chosen = torch.randperm(len(data.val), generator=generator(seed, "some"))[:images].sort().values
    return replace(data, val=Subset(data.val, chosen))
