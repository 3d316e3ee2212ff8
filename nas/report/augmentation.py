"""How training images are varied, in words: the same ones in the terminal, the report and the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def augmentation_words(stored: Mapping[str, Any]) -> str:
    """`shifted by up to 4 pixels, no mirroring, mixup 0.2`, of the augmentation in config.json; empty where it has none."""
    if not stored:
        return ""
    shift, cutout, mixup = (stored.get(name, 0) for name in ("crop_padding", "cutout", "mixup"))
    parts = [
        f"shifted by up to {_pixels(shift)}" if shift else "no shift",
        "mirrored at random" if stored.get("flip") else "no mirroring",
        f"a square of {_pixels(cutout)} hidden" if cutout else "",
        f"blended in pairs (mixup {mixup:g})" if mixup else "",
    ]
    return ", ".join(part for part in parts if part)


def _pixels(number: int) -> str:
    return f"{number} pixel{'s' * (number != 1)}"
