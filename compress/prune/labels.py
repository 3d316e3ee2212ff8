"""Labels of channels: disjoint sets (union-find) of numbers, kept in tensors of the shape of what they label.

A tensor of labels is as small as what differs in it: along dimensions where all labels are equal it has stride 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from nas.errors import InvalidSetting

# no label: numbers that no cut changes; and the label of all channels that must stay
FREE, FIXED = 0, 1
# labels that one analysis may look at, some ten seconds' worth
MOST = 4 * 10**8


class Labels:
    """Sets of labels that are joined, never parted. The smallest label of a set stands for it, FIXED before all others."""

    def __init__(self) -> None:
        self._parents = np.arange(1024)
        self._size = FIXED + 1
        self._seen = 0

    def new(self, number: int) -> Tensor:
        """Labels that no other channel has, shape (number,)."""
        start, self._size = self._size, self._size + number
        if self._size > len(self._parents):
            more = np.arange(len(self._parents), max(self._size, 2 * len(self._parents)))
            self._parents = np.concatenate([self._parents, more])
        return torch.arange(start, self._size)

    def roots(self, labels: Tensor) -> Tensor:
        """What stands for the sets of `labels`, in their shape."""
        small = compact(labels)
        self._look(small.numel())
        return torch.from_numpy(self._find(small.numpy())).expand(labels.shape)

    def unite(self, one: Tensor, two: Tensor) -> None:
        """Join the sets of labels at the same places of two tensors of one shape; where one is FREE nothing is joined."""
        self._look(one.numel())
        both = (one != FREE) & (two != FREE) & (one != two)
        pairs = np.stack(np.divmod(np.unique(one[both].numpy() * self._size + two[both].numpy()), self._size))
        for _ in range(self._size):
            low, high = np.sort(self._find(pairs), axis=0)
            differ = low != high
            if not differ.any():
                break
            pairs = np.stack([low[differ], high[differ]])
            np.minimum.at(self._parents, pairs[1], pairs[0])

    def fix(self, labels: Tensor | None) -> None:
        """Let channels stay."""
        if labels is not None:
            small = compact(labels)
            self.unite(small, torch.full_like(small, FIXED))

    def merged(self, one: Tensor, two: Tensor) -> Tensor:
        """The labels of what is computed of the values at the same places; of one shape."""
        a, b = _compact_alike(one, two)
        self.unite(a, b)
        return thin(self.roots(torch.where(a == FREE, b, a))).expand(one.shape)

    def joined(self, parts: Iterable[Tensor | None], shape: Sequence[int]) -> Tensor | None:
        """The same for operands that are broadcast to `shape`."""
        found: Tensor | None = None
        for part in parts:
            if part is None or (found is not None and self._gates(part, shape)):
                continue
            whole = part.expand(shape)
            found = whole if found is None or self._gates(found, shape) else self.merged(found, whole)
        return found

    def grouped(self, labels: Tensor, dims: Iterable[int]) -> Tensor:
        """Labels of which all along `dims` are one."""
        small = compact(labels)
        wide = [dim for dim in dims if small.shape[dim] > 1]
        if not wide:
            return labels
        first = small.amax(wide, keepdim=True)
        self.unite(small, first.expand(small.shape))
        return thin(self.roots(first)).expand(labels.shape)

    def tied(self, labels: Tensor, blocks: int, across: bool) -> None:
        """Join the channels (C,) of each of some blocks of the same size, or those at the same places of all blocks."""
        self.grouped(labels.reshape(blocks, -1), [0 if across else 1])

    def varies(self, labels: Tensor, dim: int) -> bool:
        """Whether labels differ along a dimension."""
        small = compact(self.roots(labels))
        return bool((small != small.narrow(dim, 0, 1)).any())

    def _gates(self, part: Tensor, shape: Sequence[int]) -> bool:
        """Whether one label is broadcast: such a map, or such a number, has no channels to go with those of others."""
        padded = (1,) * (len(shape) - part.dim()) + tuple(part.shape)
        return padded != tuple(shape) and compact(thin(self.roots(part))).numel() == 1

    def _find(self, labels: np.ndarray) -> np.ndarray:
        found = self._parents[labels]
        for _ in range(self._size):
            above = self._parents[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parents[labels] = found
        return found

    def _look(self, number: int) -> None:
        self._seen += number
        if self._seen > MOST:
            raise InvalidSetting(
                f"too many channels hang together in too many ways ({self._seen:.1e} of at most {MOST:.0e} looked at); "
                "give images of a smaller --shape to find the cuts with"
            )


def compact(labels: Tensor) -> Tensor:
    """One of each dimension along which labels are repeated."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and labels.stride(dim) == 0:
            labels = labels.narrow(dim, 0, 1)
    return labels


def thin(labels: Tensor) -> Tensor:
    """The same labels, with stride 0 wherever they are repeated."""
    small = compact(labels)
    for dim in range(small.dim()):
        first = small.narrow(dim, 0, min(1, small.shape[dim]))
        if small.shape[dim] > 1 and bool((small == first).all()):
            small = first
    return small.expand(labels.shape)


def _compact_alike(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    for dim in range(one.dim()):
        if one.shape[dim] > 1 and one.stride(dim) == two.stride(dim) == 0:
            one, two = one.narrow(dim, 0, 1), two.narrow(dim, 0, 1)
    return one, two
