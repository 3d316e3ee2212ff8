"""Statistics over channels that a cut changes, as norms of one's own take them: known by the sizes that they run over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# what is taken over dimensions, and the place of these among its arguments
PLACES: Mapping[Callable[..., object], int] = {
    **{getattr(owner, name): 1 for owner in (torch, Tensor) for name in ("mean", "var", "std", "amax", "amin", "max", "min")},
    **dict.fromkeys((torch.var_mean, torch.std_mean), 1),
    **dict.fromkeys((torch.norm, Tensor.norm, torch.linalg.vector_norm, torch.linalg.norm), 2),
}
Sizes = tuple[int, ...]


class Statistics(TorchFunctionMode):
    """Follows the statistics of a run, in order: `sizes` are the shapes that they are taken of.

    Given those of another run, those that run over other numbers of values are one: their places are in `over_channels`, and
    so are those of `known`.
    """

    def __init__(self, usual: Sequence[Sizes] = (), known: Collection[int] = ()) -> None:
        super().__init__()
        self.usual, self.over_channels, self.sizes = usual, set(known), list[Sizes]()

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        """Note a statistic, and let it be one where it is known to run over channels that are cut."""
        named = dict(kwargs or {})
        found = func(*args, **named)
        if func not in PLACES or not args or not isinstance(args[0], Tensor):
            return found
        number, shape = len(self.sizes), tuple(args[0].shape)
        self.sizes.append(shape)
        if number < len(self.usual) and _differ(shape, self.usual[number], _dims(func, args, named, len(shape))):
            self.over_channels.add(number)
        return tree_map(_one, found) if number in self.over_channels else found


def _dims(func: Callable[..., object], args: tuple, named: Mapping[str, object], number: int) -> list[int]:
    """The dimensions that a statistic runs over, all where none are told."""
    place = PLACES[func]
    told = args[place] if place < len(args) else named.get("dim", named.get("axis"))
    dims = [told] if isinstance(told, int) and not isinstance(told, bool) else told
    return [dim % number for dim in dims] if isinstance(dims, list | tuple) and dims else list(range(number))


def _differ(shape: Sizes, usual: Sizes, dims: Sequence[int]) -> bool:
    return len(shape) == len(usual) and any(shape[dim] != usual[dim] for dim in dims)


def _one(found: object) -> object:
    return torch.ones_like(found) if isinstance(found, Tensor) and found.is_floating_point() else found
