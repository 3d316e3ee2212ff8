"""Small real spaces and data for tests: they train in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from nas.architecture import SearchSpace
from nas.budget import Budget
from nas.data.dataset import ArraySplit, Dataset
from nas.seeding import numpy_rng
from nas.supernet.supernet import Supernet
from nas.torch_seeding import generator
from nas.training.loop import Objective
from nas.training.objectives import in_place
from nas.training.samplers import Sampling, sandwich
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"


def space_for(name: str, budget: str = "0.3MFLOPs", shape: DataShape = DataShape(1, 8, 3), **options: object) -> SearchSpace:  # noqa: B008 - frozen
    """A space sized to a budget."""
    family = SPACES[name]
    return sized(family, shape, [Budget.parse(budget)], family.options(**options))


def sandwiched(supernet: Supernet, seed: int) -> Objective:
    """The objective of a supernet's training by the sandwich rule."""
    return in_place(supernet, sandwich(Sampling(supernet.space, seed, lambda arch: 0.0)))


def randomize_norms(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give all norms random scales and shifts: equality tests with identity norms prove little."""
    rng = generator(seed, "norms")
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine:
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=rng)
            nn.init.normal_(layer.bias, std=0.5, generator=rng)
            if layer.track_running_stats:
                nn.init.normal_(layer.running_mean, std=0.5, generator=rng)
                nn.init.uniform_(layer.running_var, 0.5, 1.5, generator=rng)
    return module


def images(*shape: int, seed: int = 0) -> Tensor:
    """Random normalized images."""
    return torch.randn(*shape, generator=generator(seed, "images"))


def blobs(side: int = 8, classes: int = 3, train: int = 48) -> Dataset:
    """A data set whose class is the brightness of the image: quick to learn."""
    rng = numpy_rng(0, "blobs")

    def split(n: int) -> ArraySplit:
        labels = torch.arange(n) % classes
        noise = torch.from_numpy(rng.integers(0, 60, (n, 1, side, side)))
        return ArraySplit((noise + labels[:, None, None, None] * 80).to(torch.uint8), labels)

    parts, names = (split(train), split(24)), tuple(f"class {i}" for i in range(classes))
    return Dataset("blobs", *parts, lambda: split(24), names, 1, side, (0.4,), (0.3,), flip=False, fingerprint="blobs")
