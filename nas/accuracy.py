"""Accuracies as what they are: shares of a sample of images, with a standard error."""

from __future__ import annotations

import math


def standard_error(share: float, images: int) -> float:
    """Standard error of an accuracy `share` (0..1) that was counted on so many images, as a share too.

    That of a binomial, sqrt(p (1 - p) / n), with p at least half an image away from 0 and 1: nine right answers of nine are no
    certainty. Infinite without images.
    """
    if images < 1:
        return math.inf
    p = min(max(share, 0.5 / images), 1 - 0.5 / images)
    return math.sqrt(p * (1 - p) / images)


def with_error(share: float, images: int | None, digits: int = 2) -> str:
    """`99.30% ± 0.49%`, or the share alone where it is not known on how many images it was counted."""
    text = f"{share:.{digits}%}"
    return f"{text} ± {standard_error(share, images):.{digits}%}" if images else text
