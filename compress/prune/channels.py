"""Where an operation puts the channels of what it reads, from the shapes that autograd records.

Channels are dimension 1 of maps (N, C, H, W) and of features (N, C), and the last dimension of tokens (N, L, C). Operations
that are in no table here leave channels where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Index(NamedTuple):
    """A channel and its label."""

    channel: int
    label: int


IndexMap = Callable[[list[Index]], list[Index]]
# from what is read to what is written, and back
Moves = tuple[IndexMap, IndexMap]
# a node of the graph that autograd records, which has no public type
Operation = Any


@dataclass(frozen=True)
class Put:
    """Channels become every `step`-th from `start` on."""

    start: int
    step: int = 1

    def __call__(self, indices: list[Index]) -> list[Index]:
        """Map channels."""
        return [Index(self.start + channel * self.step, label) for channel, label in indices]


@dataclass(frozen=True)
class Take:
    """Only `size` channels are left, every `step`-th from `start` on."""

    start: int
    size: int
    step: int = 1

    def __call__(self, indices: list[Index]) -> list[Index]:
        """Map channels."""
        left = range(self.start, self.start + self.size * self.step, self.step)
        return [Index(left.index(channel), label) for channel, label in indices if channel in left]


@dataclass(frozen=True)
class Blocks:
    """Channels in blocks of `size` become as many blocks of `other`; what is in a block is cut as a whole.

    Of each block the first channel meets all others, which is enough to give them one label.
    """

    size: int
    other: int

    def __call__(self, indices: list[Index]) -> list[Index]:
        """Map channels."""
        found, seen = [], set()
        for channel, label in indices:
            block = channel // self.size
            met = 1 if block in seen else self.other
            seen.add(block)
            found += [Index(block * self.other + i, label) for i in range(met)]
        return found


def moves_into(operation: Operation, slot: int) -> Moves | None:
    """Where the channels of the input number `slot` go; None if they stay."""
    move = INTO.get(operation.name().rstrip("0123456789"))
    return move(operation, slot) if move else None


def moves_out_of(operation: Operation, number: int) -> Moves | None:
    """Which channels output `number` of an operation with several outputs has; None if all."""
    move = OUT_OF.get(operation.name().rstrip("0123456789"))
    return move(operation, number) if move else None


def _concat(operation: Operation, slot: int) -> Moves | None:
    whole = _written(operation)
    dim = _signed(operation._saved_dim) % len(whole)
    if dim not in (1, len(whole) - 1) or (len(whole) == 3 and dim == 1):
        return None
    sizes = [_read(operation, k)[dim] if source else None for k, (source, _) in enumerate(operation.next_functions)]
    # what needs no gradient leaves no shape; of one such input it is what the others leave
    if sizes.count(None) > 1:
        return None
    rest = whole[dim] - sum(size for size in sizes if size is not None)
    known = [rest if size is None else size for size in sizes]
    start = sum(known[:slot])
    return Put(start), Take(start, known[slot])


def _pad(operation: Operation, slot: int) -> Moves | None:
    """Padding is given from the last dimension to the first."""
    pad = operation._saved_pad
    return (Put(pad[4]), Take(pad[4], _read(operation, slot)[1])) if len(pad) > 5 else None


def _flatten(operation: Operation, slot: int) -> Moves | None:
    read, written = _read(operation, slot), _written(operation)
    if len(read) != 4 or len(written) != 2 or read[0] != written[0]:
        return None
    pixels = read[2] * read[3]
    return Blocks(1, pixels), Blocks(pixels, 1)


def _slice(operation: Operation, slot: int) -> Moves | None:
    read = _read(operation, slot)
    dim = _signed(operation._saved_dim) % len(read)
    if dim != (2 if len(read) == 3 else 1):
        return None
    start, step = _signed(operation._saved_start) % (read[dim] + 1), operation._saved_step
    return Take(start, _written(operation)[dim], step), Put(start, step)


def _split(operation: Operation, number: int) -> Moves | None:
    shapes = [part.shape for part in operation._input_metadata]
    dim = _signed(operation._saved_dim) % len(shapes[0])
    if dim not in (1, len(shapes[0]) - 1) or (len(shapes[0]) == 3 and dim == 1):
        return None
    start = sum(shape[dim] for shape in shapes[:number])
    return Take(start, shapes[number][dim]), Put(start)


INTO: dict[str, Callable[[Operation, int], Moves | None]] = {
    "CatBackward": _concat,
    "ConstantPadNdBackward": _pad,
    "ViewBackward": _flatten,
    "ReshapeAliasBackward": _flatten,
    "UnsafeViewBackward": _flatten,
    "SliceBackward": _slice,
}
OUT_OF: dict[str, Callable[[Operation, int], Moves | None]] = {
    "SplitBackward": _split,
    "SplitWithSizesBackward": _split,
}


def _read(operation: Operation, slot: int) -> tuple[int, ...]:
    """The shape of an input: what the operation before it takes gradients of is what it wrote."""
    source, number = operation.next_functions[slot]
    return tuple(source._input_metadata[number].shape)


def _written(operation: Operation) -> tuple[int, ...]:
    return tuple(operation._input_metadata[0].shape)


def _signed(value: int) -> int:
    """Autograd shows negative numbers as unsigned ones of 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
