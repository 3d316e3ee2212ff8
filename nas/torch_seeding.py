"""Torch generators from (seed, path), the sibling of nas.seeding for files that import torch."""

from __future__ import annotations

import torch

from nas.seeding import derive


def generator(seed: int, *path: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose, such as ("augment", step), on `device`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))
