"""What operations of ATen do to the labels of channels: one function a kind of operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compress.prune.labels import FIXED, FREE, thin
from compress.prune.products import product
from compress.prune.tracking import Call, Tracker, tensors_of

Found = list[Tensor | None]
Rule = Callable[[Tracker, Call], Found]


def unknown(tracker: Tracker, call: Call) -> Found:
    """What is read and written stays as it is."""
    tracker.held[f"operation {call.function._schema.name.removeprefix('aten::')}"] = None
    for tensor in tensors_of((call.args, call.kwargs)):
        tracker.labels.fix(tracker.of(tensor))
    return [torch.tensor(FIXED).expand(out.shape) for out in tensors_of(call.output)]


def pointwise(tracker: Tracker, call: Call) -> Found:
    """Each number is computed of those at the same place."""
    read = [tracker.of(tensor) for tensor in tensors_of((call.args, call.kwargs))]
    return [tracker.labels.joined(read, out.shape) for out in tensors_of(call.output)]


def same(tracker: Tracker, call: Call) -> Found:
    """As the first input, whatever else is read."""
    labels = tracker.of(call.args[0])
    return [labels if labels is not None and labels.shape == out.shape else None for out in tensors_of(call.output)]


def moved(tracker: Tracker, call: Call, inputs: int | None = 1) -> Found:
    """What moves numbers moves labels; `inputs` of the arguments are moved, all if None, and the others tell where."""

    def labels_of(value: object) -> object:
        if isinstance(value, Tensor):
            known = tracker.of(value)
            return torch.tensor(FREE).expand(value.shape) if known is None else known
        return type(value)(labels_of(part) for part in value) if isinstance(value, list | tuple) else value

    def on_host(value: object) -> object:
        if isinstance(value, Tensor):
            return value.cpu()
        return type(value)(on_host(part) for part in value) if isinstance(value, list | tuple) else value

    number = len(call.args) if inputs is None else inputs
    args = [labels_of(arg) if place < number else on_host(arg) for place, arg in enumerate(call.args)]
    moved = tensors_of(call.function(*args, **call.kwargs))
    return [thin(labels) for labels in moved]


def reshaped(tracker: Tracker, call: Call) -> Found:
    """The same numbers in the same order."""
    labels = tracker.of(call.args[0])
    return [None if labels is None else thin(labels.reshape(out.shape)) for out in tensors_of(call.output)]


def restrided(tracker: Tracker, call: Call) -> Found:
    """Another layout in memory of the same numbers; anything else is not known."""
    same = [out.shape == call.args[0].shape for out in tensors_of(call.output)]
    return [tracker.of(call.args[0])] if same == [True] else unknown(tracker, call)


def split(tracker: Tracker, call: Call) -> Found:
    """Equal parts are those of torch.chunk: what goes from one of them goes from all."""
    parts = [labels for labels in moved(tracker, call) if labels is not None]
    if len(parts) > 1 and len({labels.shape for labels in parts}) == 1:
        for labels in parts[1:]:
            tracker.labels.merged(parts[0], labels)
    return [tracker.labels.roots(labels) for labels in parts]


def concat(tracker: Tracker, call: Call) -> Found:
    """One after the other; where the labels of all are repeated they stay so."""
    parts = [tensor for tensor in call.args[0] if tensor.dim() == tensors_of(call.output)[0].dim()]
    known = [tracker.of(tensor) for tensor in parts]
    labels = [torch.tensor(FREE).expand(x.shape) if y is None else y for x, y in zip(parts, known, strict=True)]
    dim = (call.args[1] if len(call.args) > 1 else int(str(call.kwargs.get("dim", 0)))) % labels[0].dim()
    shape = tensors_of(call.output)[0].shape
    for other in range(len(shape)):
        if other != dim and shape[other] > 1 and all(x.stride(other) == 0 for x in labels):
            labels = [x.narrow(other, 0, 1) for x in labels]
    return [thin(torch.cat(labels, dim)).expand(shape)]


def along(tracker: Tracker, call: Call, places: Sequence[int] = (1,)) -> Found:
    """Of several channels one number is computed, or numbers that depend on all of them: these are one from now on."""
    labels = tracker.of(call.args[0])
    if labels is None:
        return [None for _ in tensors_of(call.output)]
    dims = _dims(call, labels.dim(), places)
    grouped = tracker.labels.grouped(labels, dims)
    return [_fitted(grouped, dims, out.shape) for out in tensors_of(call.output)]


def statistic(tracker: Tracker, call: Call, places: Sequence[int] = (1,)) -> Found:
    """A mean, a deviation or the like: one over all channels, as norms have it, is no channel, and goes with none of them.

    Where channels are left beside those that it runs over, they are one, as `along` has it.
    """
    labels = tracker.of(call.args[0])
    if labels is not None:
        dims = _dims(call, labels.dim(), places)
        others = [dim for dim in range(labels.dim()) if dim not in dims]
        over = any(tracker.labels.varies(labels, dim) for dim in dims)
        if over and not any(tracker.labels.varies(labels, dim) for dim in others):
            return [None for _ in tensors_of(call.output)]
    return along(tracker, call, places)


def _dims(call: Call, number: int, places: Sequence[int]) -> list[int]:
    """The dimensions that an operation is told, all if none are."""
    given = [call.args[place] for place in places if place < len(call.args)] + [call.kwargs.get("dim")]
    found = next((x for x in given if isinstance(x, int | list | tuple) and not isinstance(x, bool) and x != []), None)
    dims = list(range(number)) if found is None else [found] if isinstance(found, int) else list(found)
    return [dim % number for dim in dims] if number else []


def _fitted(grouped: Tensor, dims: Sequence[int], shape: torch.Size) -> Tensor | None:
    """Labels that are one along `dims`, as the output has these dimensions: whole, of size 1, or none at all."""
    if grouped.shape == shape:
        return grouped
    kept = grouped
    for dim in sorted(dims, reverse=True):
        kept = kept.narrow(dim, 0, 1)
    if kept.shape != shape:
        kept = kept.reshape([size for dim, size in enumerate(kept.shape) if dim not in dims])
    return kept.expand(shape)


def spatial(tracker: Tracker, call: Call, sides: int) -> Found:
    """What mixes places, but not channels: the labels of the last `sides` dimensions are one."""
    labels = tracker.of(call.args[0])
    if labels is None:
        return [None for _ in tensors_of(call.output)]
    grouped = tracker.labels.grouped(labels, range(labels.dim() - sides, labels.dim()))
    for dim in range(labels.dim() - sides, labels.dim()):
        grouped = grouped.narrow(dim, 0, 1)
    return [grouped.expand(out.shape) for out in tensors_of(call.output)]


def unfolded(tracker: Tracker, call: Call) -> Found:
    """Windows of a map, (N, C, H, W) -> (N, C * window, places): each channel as often as there are places in a window."""
    labels = tracker.of(call.args[0])
    out = tensors_of(call.output)[0]
    if labels is None or labels.dim() != 4 or out.dim() != 3:
        return unknown(tracker, call)
    channels = tracker.labels.grouped(labels, (2, 3))[:, :, 0, 0]
    window = out.shape[1] // channels.shape[1]
    return [channels.repeat_interleave(window, 1)[:, :, None].expand(out.shape)]


def halves(tracker: Tracker, call: Call) -> Found:
    """Gated linear units multiply the first half of the channels by the second."""
    labels = tracker.of(call.args[0])
    assert labels is not None
    dim = call.args[1] if len(call.args) > 1 else -1
    return [tracker.labels.merged(*labels.chunk(2, dim))]


def copied(tracker: Tracker, call: Call) -> Found:
    """What is written into another tensor has its channels; into one without labels, nobody knows which."""
    target, source = tracker.of(call.args[0]), tracker.of(call.args[1])
    if target is None:
        tracker.labels.fix(source)
        return [None]
    return [tracker.labels.joined([target, source], target.shape)]


def multiplied(tracker: Tracker, call: Call, first: int = 0) -> Found:
    """Matrix products (..., M, K) @ (..., K, N); before them, of `first` arguments, a tensor is added."""
    one, two = call.args[first], call.args[first + 1]
    out = tensors_of(call.output)[0]
    if one.dim() < 2 or two.dim() < 2:
        return unknown(tracker, call)
    found = product(tracker, tracker.of(one), tracker.of(two), (*out.shape[:-1], out.shape[-1]))
    added = [tracker.of(arg) for arg in call.args[:first]]
    return [tracker.labels.joined([found, *added], out.shape)]


def nothing(tracker: Tracker, call: Call) -> Found:
    """What a network asks for, to go one way or another, and what has but the shape of another tensor."""
    return [None for _ in tensors_of(call.output)]
