"""Matrix products of tensors whose channels have labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from compress.prune.labels import FIXED
from compress.prune.tracking import Tracker


def product(tracker: Tracker, one: Tensor | None, two: Tensor | None, shape: Sequence[int]) -> Tensor | None:
    """Labels of a matrix product, of `shape` (..., M, N).

    Channels along M or N stay channels; those along K meet those of the other matrix, and are summed up. What has both, or
    channels on one side alone of K, stays as it is.
    """
    labels = tracker.labels
    outer = [_outer(tracker, one, summed=-1), _outer(tracker, two, summed=-2)]
    inner = [_inner(tracker, one, free=-2, summed=-1), _inner(tracker, two, free=-1, summed=-2)]
    a, b = inner
    if a is not None and b is not None and a.shape == b.shape:
        labels.unite(a, b)
    else:
        labels.fix(a)
        labels.fix(b)
    if outer[0] is not None and outer[1] is not None:
        labels.fix(outer[0])
        labels.fix(outer[1])
        return torch.tensor(FIXED).expand(shape)
    found = next((x for x in outer if x is not None), None)
    return None if found is None else found.expand(shape)


def _outer(tracker: Tracker, labels: Tensor | None, summed: int) -> Tensor | None:
    """Labels of a matrix along the dimension that stays, of size 1 along the other; None if there are none."""
    if labels is None or tracker.labels.varies(labels, summed % labels.dim()):
        return None
    return tracker.labels.roots(labels.narrow(summed, 0, 1))


def _inner(tracker: Tracker, labels: Tensor | None, free: int, summed: int) -> Tensor | None:
    """Labels of a matrix along the dimension that is summed up, (..., K); those of both dimensions are fixed."""
    if labels is None or not tracker.labels.varies(labels, summed % labels.dim()):
        return None
    if tracker.labels.varies(labels, free % labels.dim()):
        tracker.labels.fix(labels)
    return labels.narrow(free, 0, 1).squeeze(free)
