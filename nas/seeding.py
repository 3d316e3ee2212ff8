"""Random generators from (seed, path): never from a global generator, so that any step can be replayed alone."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *path: int | str) -> int:
    """Derive a 63-bit seed for one purpose, such as ("augment", step) or ("ask", number)."""
    text = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_rng(seed: int, *path: int | str) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(derive(seed, *path))
