"""Where the channels of a network go: labels that follow every operation of one run.

Each output channel of a layer has a label, and the operations that torch dispatches take it along: what moves numbers moves
their labels, what computes one number of several joins them. So reshapes, shuffles and concatenations need no guess. What an
operation without a rule reads must stay as it is (DepGraph, Fang et al. 2023, has the same relation from a graph).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from compress.prune.groups import OUT
from compress.prune.labels import FIXED, FREE, Labels, compact

WEIGHTED = (_ConvNd, nn.Linear)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)
# elements of a tensor of its own that a network adds or scales by; larger ones stay as they are
MOST_ELEMENTS = 2 * 10**6


class Port(NamedTuple):
    """The output or input channels of a layer; of a bare tensor, its dimension `dim`."""

    layer: str
    side: str
    dim: int = 0


class Call(NamedTuple):
    """An operation that was run, and what came out of it."""

    function: Any
    args: tuple
    kwargs: Mapping[str, object]
    output: object


OperationRule = Callable[["Tracker", Call], list[Tensor | None]]
LayerRule = Callable[["Tracker", Call], Tensor | None]


class Tracker:
    """Labels of the tensors of a run, and of the channels of layers; those that layers of `claimed` write stay.

    Convolutions of several groups lose whole groups: all channels of a group go together. Those of `inner` keep their groups:
    the channels at the same place in all groups go together.
    """

    def __init__(self, network: nn.Module, claimed: frozenset[str], inner: frozenset[str]) -> None:
        self.labels = Labels()
        self.claimed, self.inner = claimed, inner
        self.ports: dict[Port, Tensor] = {}
        self.bare: dict[str, Tensor] = {}
        self.running = ""
        self.spoiled: set[str] = set()
        # what holds channels, in words, in order
        self.held: dict[str, None] = {}
        self.layers: dict[str, nn.Module] = {}
        self._shadows: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._owners: dict[int, str] = {}
        self._names: dict[int, str] = {}
        for name, part in network.named_modules():
            tensors = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
            if isinstance(part, (*WEIGHTED, *NORMS)):
                self.layers[name] = part
                self._owners.update({id(x): name for x in tensors.values()})
            else:
                known = {id(x): f"{name}.{leaf}" if name else leaf for leaf, x in tensors.items() if x.is_floating_point()}
                self._names.update(known)
        self._names = {number: name for number, name in self._names.items() if number not in self._owners}

    def owner(self, tensor: object) -> str | None:
        """The layer that has a tensor as its weight, bias or statistics."""
        return self._owners.get(id(tensor))

    def of(self, tensor: object) -> Tensor | None:
        """The labels of a tensor in its shape; None if no cut changes it."""
        if not isinstance(tensor, Tensor):
            return None
        found = self._shadows.get(tensor)
        if found is None and id(tensor) in self._names:
            return self._of_bare(tensor)
        return found

    def put(self, tensor: object, labels: Tensor | None) -> None:
        """Give a tensor labels."""
        if isinstance(tensor, Tensor) and labels is not None and bool(compact(labels).any()):
            self._shadows[tensor] = labels
        elif isinstance(tensor, Tensor):
            self._shadows.pop(tensor, None)

    def port(self, layer: str, side: str, width: int) -> Tensor:
        """The labels of the channels of a layer, (width,); a single one is never cut, and has none."""
        port = Port(layer, side)
        if port not in self.ports:
            stays = layer in self.spoiled or (side == OUT and layer in self.claimed)
            self.ports[port] = torch.full((width,), FIXED) if stays else self.labels.new(width)
        return self.ports[port]

    def meet(self, port: Tensor, channels: Tensor | None) -> None:
        """The channels of a layer are those of what it reads; what has no label stays as it is."""
        read = torch.zeros_like(port) if channels is None else channels
        self.labels.unite(port, torch.where(read == FREE, FIXED, read))

    def misused(self, layer: str) -> None:
        """A network computes with the weights of a layer by itself: its channels stay."""
        self.spoiled.add(layer)
        self.held[f"{layer}, whose weights are computed with outside of the layer"] = None
        for port, labels in self.ports.items():
            if port.layer == layer:
                self.labels.fix(labels)

    def _of_bare(self, tensor: Tensor) -> Tensor | None:
        name = self._names[id(tensor)]
        if name not in self.bare and tensor.numel() > 1:
            small = tensor.numel() <= MOST_ELEMENTS
            labels = self.labels.new(tensor.numel()) if small else torch.tensor(FIXED)
            self.bare[name] = labels.reshape(tensor.shape) if small else labels.expand(tensor.shape)
        return self.bare.get(name)


@contextmanager
def tracking(
    tracker: Tracker, network: nn.Module, operations: OperationRule, layers: Mapping[object, LayerRule]
) -> Iterator[None]:
    """Follow all that is run inside."""
    norms = [(name, part) for name, part in tracker.layers.items() if isinstance(part, NORMS)]

    def enter(name: str) -> Callable[..., None]:
        def note(*_: object) -> None:
            tracker.running = name

        return note

    hooks = [part.register_forward_pre_hook(enter(name)) for name, part in norms]
    hooks += [part.register_forward_hook(enter("")) for _, part in norms]
    follower = _Operations(tracker, operations)
    try:
        with follower, _Layers(tracker, follower, layers):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class _Operations(TorchDispatchMode):
    """Labels follow the operations of ATen."""

    def __init__(self, tracker: Tracker, rule: OperationRule) -> None:
        super().__init__()
        self.tracker, self.rule, self.paused = tracker, rule, False

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        named = kwargs or {}
        output = func(*args, **named)
        if not self.paused:
            call = Call(func, args, named, output)
            for tensor in tensors_of((args, tuple(named.values()))):
                if owner := self.tracker.owner(tensor):
                    self.tracker.misused(owner)
            for tensor, labels in zip(tensors_of(output), self.rule(self.tracker, call), strict=True):
                self.tracker.put(tensor, labels)
        return output


class _Layers(TorchFunctionMode):
    """Labels follow the functions of layers, whose weights have channels on both sides."""

    def __init__(self, tracker: Tracker, operations: _Operations, rules: Mapping[object, LayerRule]) -> None:
        super().__init__()
        self.tracker, self.operations, self.rules = tracker, operations, rules

    def __torch_function__(
        self, func: Any, types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        named = kwargs or {}
        rule = self.rules.get(func)
        if rule is None:
            return func(*args, **named)
        self.operations.paused = True
        try:
            output = func(*args, **named)
            self.tracker.put(output, rule(self.tracker, Call(func, args, named, output)))
        finally:
            self.operations.paused = False
        return output


def tensors_of(value: object) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]
