"""The front of many points, also as it grew."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nas.trial import pareto_front


def front_of_many(points: np.ndarray) -> list[int]:
    """Indices of the points that no other one beats, as `nas.trial.pareto_front` gives them."""
    return pareto_front(points)


def fronts_over_time(points: np.ndarray, steps: int) -> Iterator[tuple[int, list[int]]]:
    """Number of points so far and the front of those, about `steps` times; all objectives (n, objectives) are minimized.

    Each part is compared with the front before it alone.
    """
    size = max(1, math.ceil(len(points) / max(1, steps)))
    front: list[int] = []
    for start in range(0, len(points), size):
        end = min(start + size, len(points))
        pool = [*front, *range(start, end)]
        front = [pool[i] for i in pareto_front(points[pool])]
        yield end, front
