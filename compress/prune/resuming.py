"""A network that is run again and again with other weights of a few layers, from the features before the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from compress.prune.slices import called

# which call of which part of the network
Call = tuple[str, int]


class Resumable:
    """Runs `module` on one batch of images (N, C, H, W), with whatever parameters.

    What parts of the network gave before a changed layer was reached is kept, as large parts as there are, and nothing else:
    about a block's features for each block before the layer. Inside `resumable`, whose `current` holds the one that runs, and
    without gradients.
    """

    def __init__(self, module: nn.Module, images: Tensor, current: list[Resumable]) -> None:
        self.module, self.images, self._current = module, images, current
        self._kept: dict[Call, Any] = {}
        self._used: set[Call] = set()
        self._calls: dict[str, int] = {}
        self._changed: frozenset[str] = frozenset()
        self._above: frozenset[str] = frozenset()
        self._inside, self._reached = 0, False

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The outputs with some parameters replaced, by name."""
        self._current[:] = [self]
        self._changed = frozenset(name.rpartition(".")[0] for name in parameters)
        self._above = frozenset(part for name in self._changed for part in _ancestors(name))
        self._calls, self._used, self._inside, self._reached = {}, set(), 0, "" in self._changed
        outputs = called(self.module, parameters, self.images)
        self._kept = {call: kept for call, kept in self._kept.items() if call in self._used}
        return outputs

    def part(self, name: str, forward: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any]) -> object:
        """What a part of the network gives: what was kept of it, if no changed layer ran before."""
        call = (name, self._calls.get(name, 0))
        self._calls[name] = call[1] + 1
        self._reached |= name in self._changed
        if self._reached or self._inside or name in self._above:
            return forward(*args, **kwargs)
        self._used.add(call)
        if call not in self._kept:
            self._inside += 1
            try:
                found = forward(*args, **kwargs)
            finally:
                self._inside -= 1
            if not isinstance(found, Tensor):
                self._used.discard(call)
                return found
            self._kept[call] = found.clone()  # what follows may change it in place
            return found
        return self._kept[call].clone()


@contextmanager
def resumable(module: nn.Module) -> Iterator[Callable[[Tensor], Resumable]]:
    """Give what makes a Resumable of a batch; the module itself runs as before until one of them does."""
    current: list[Resumable] = []

    def make(images: Tensor) -> Resumable:
        return Resumable(module, images, current)

    def watched(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: current[0].part(name, forward, args, kwargs) if current else forward(*args, **kwargs)

    parts = [(name, part, part.__dict__.get("forward")) for name, part in module.named_modules() if name]
    for name, part, _ in parts:
        part.__dict__["forward"] = watched(name, part.forward)
    try:
        yield make
    finally:
        for _, part, own in parts:
            del part.__dict__["forward"]
            if own is not None:
                part.__dict__["forward"] = own


def _ancestors(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
