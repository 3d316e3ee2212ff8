"""Proof of groups: cut some units of each, and see that the network computes what it does when nothing reads those units.

Graphs of operations do not tell what a reshape, a shuffle or a number in a forward does to channels. A group that fails is
not a group, whatever the graph says. Weights are drawn at random, so that the answer depends on the architecture alone.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.prune.execution import FAILURES
from compress.prune.groups import Cut, Group
from compress.prune.slices import called, silenced
from compress.prune.statistics import Statistics
from nas.errors import InvalidSetting
from nas.torch_seeding import generator

Remove = Callable[[nn.Module, Sequence[Group], Sequence[Cut]], nn.Module]
# a wrong channel changes about as much as cutting does; rounding changes a millionth of the output
OF_EFFECT, OF_OUTPUT = 1e-3, 1e-5
# of its units, each group is cut by another share: what only holds for equal ones is no group
SHARES = (0.2, 0.6)
# two of them, for one may meet by chance what a network asks for, such as channels that its heads divide
DRAWS = 2
# groups of so few units can be cut by few shares, and others are not cut by about the same
FEW, ABOUT = 4, 0.05
# networks of fewer parameters are compared in double precision: without their norms, some make much of a rounding error
LARGE = 10**8


def proven(module: nn.Module, example: Tensor, groups: Sequence[Group], remove: Remove) -> tuple[Group, ...]:
    """Those of `groups` that can really be cut, in order. `remove(module, groups, cuts)` gives a copy without the units.

    Some units of all groups are cut at once, of each another share; only where that fails are they halved. What holds by
    itself must hold together, too. Norms over channels are replaced by functions of each channel alone, and means and the
    like over channels that are cut by one, since these statistics are meant to change. `module` is in evaluation mode, and
    left as it is. Raises InvalidSetting if it gives no finite numbers.
    """
    probe, example = _precise(_with_random_weights(module), example)
    draws = [_some_units(groups, number) for number in range(DRAWS)]

    def hold(some: Sequence[Group]) -> bool:
        return all(hold_cut([(group, drawn[group.name]) for group in some]) for drawn in draws)

    def hold_cut(chosen: Sequence[tuple[Group, tuple[int, ...]]]) -> bool:
        some = [group for group, _ in chosen]
        try:
            smaller = remove(probe, some, [Cut(group.name, units) for group, units in chosen])
            with Statistics(usual.sizes) as changed:
                cut = _outputs(smaller(example))
        except FAILURES:
            return False
        with Statistics(usual.sizes, changed.over_channels):
            expected = _outputs(called(probe, silenced(probe, chosen), example))
        return _agree(cut, expected, whole)

    def search(some: Sequence[Group], failed: bool = False) -> tuple[Group, ...]:
        if not some or (not failed and hold(some)):
            return tuple(some)
        middle = len(some) // 2
        first = search(some[:middle]) if middle else ()
        # where nothing is wrong with the first half, the second is what failed
        return first + search(some[middle:], failed=len(first) == middle) if middle else ()

    with torch.no_grad(), _NormsByChannel():
        with Statistics() as usual:
            whole = _outputs(probe(example))
        if not all(x.isfinite().all() for x in whole):
            raise InvalidSetting(
                f"{type(module).__name__} gives no finite numbers with random weights, so no cut can be proven"
            )
        found = search(groups)
        if len(found) == len(groups) or hold(found):
            return found
        together: tuple[Group, ...] = ()
        for group in found:
            together = (*together, group) if hold((*together, group)) else together
        return together


def _precise(probe: nn.Module, example: Tensor) -> tuple[nn.Module, Tensor]:
    """In double precision, but for large networks, and for those whose forward insists on another one."""
    if sum(p.numel() for p in probe.parameters()) >= LARGE:
        return probe, example
    doubled = copy.deepcopy(probe).double()
    try:
        with torch.no_grad():
            doubled(example.double())
    except FAILURES:
        return probe, example
    return doubled, example.double()


class _NormsByChannel(TorchFunctionMode):
    """Norms over channels without their statistics, which a cut may change: each channel by itself remains.

    The inverse hyperbolic sine keeps signals from growing, as the statistics would, and small differences from vanishing.
    """

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        """Replace layer norms and group norms."""
        named = dict(kwargs or {})
        if func in (F.layer_norm, F.rms_norm):
            return _scaled(args, named, dim=-1)
        if func is F.group_norm:
            return _scaled(args, named, dim=1)
        if func in (F.local_response_norm, F.normalize):
            return args[0].asinh()
        return func(*args, **named)


def _scaled(args: tuple, named: Mapping[str, object], dim: int) -> Tensor:
    """Scale and shift along `dim`: arguments are those of F.layer_norm and F.group_norm."""
    read, _, weight, bias = (*args, *(named.get(n) for n in ("input", "shape", "weight", "bias")[len(args) :]))[:4]
    assert isinstance(read, Tensor)
    x = read.asinh()
    shape = [1] * x.dim()
    shape[dim] = -1
    for apply, part in ((torch.mul, weight), (torch.add, bias)):
        if isinstance(part, Tensor):
            x = apply(x, part.view(shape) if part.dim() == 1 else part)
    return x


def _with_random_weights(module: nn.Module) -> nn.Module:
    """A copy in which nothing is zero or one, and signals keep their size (He et al. 2015)."""
    probe = copy.deepcopy(module)
    rng = generator(0, "proof")

    def normal(x: Tensor, std: float) -> None:
        x.copy_(torch.randn(x.shape, generator=rng) * std)

    def positive(x: Tensor) -> None:
        x.copy_(torch.rand(x.shape, generator=rng) + 0.5)

    with torch.no_grad():
        for name, parameter in probe.named_parameters():
            if parameter.dim() > 1:
                normal(parameter, math.sqrt(2 / max(1, parameter[0].numel())))
            elif name.endswith("bias"):
                normal(parameter, 0.1)
            else:
                positive(parameter)
        for name, buffer in probe.named_buffers():
            if name.endswith("running_mean"):
                normal(buffer, 0.1)
            elif name.endswith("running_var"):
                positive(buffer)
    return probe


def _some_units(groups: Sequence[Group], draw: int) -> dict[str, tuple[int, ...]]:
    """Units to cut of each group: other shares than those of narrow groups, other numbers than of groups of the same layers."""
    narrow: set[float] = set()
    taken: dict[str, set[int]] = defaultdict(set)
    chosen = {}
    for group in sorted(groups, key=lambda group: group.width):
        rng = generator(0, "proof", f"{group.name} {draw}")
        low, high = SHARES
        wanted = (low + (high - low) * float(torch.rand(1, generator=rng))) * group.width
        numbers = range(group.width % group.multiple_of or group.multiple_of, group.width, group.multiple_of)
        layers = [member.layer for member in group.members]
        used = set().union(*(taken[layer] for layer in layers))

        def doubt(n: int, used: Collection[int] = used, wanted: float = wanted, width: int = group.width) -> tuple[int, float]:
            return (n in used) + any(abs(n / width - share) < ABOUT for share in narrow), abs(n - wanted)

        number = min(numbers, key=doubt, default=1)
        for layer in layers:
            taken[layer].add(number)
        if group.width <= FEW:
            narrow.add(number / group.width)
        chosen[group.name] = tuple(sorted(torch.randperm(group.width, generator=rng)[:number].tolist()))
    return chosen


def _outputs(value: object) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [tensor for part in parts for tensor in _outputs(part)]


def _agree(cut: list[Tensor], expected: list[Tensor], whole: list[Tensor]) -> bool:
    if [x.shape for x in cut] != [x.shape for x in whole]:
        return False
    return all(_close(*tensors) for tensors in zip(cut, expected, whole, strict=True))


def _close(cut: Tensor, expected: Tensor, whole: Tensor) -> bool:
    limit = OF_EFFECT * (expected - whole).abs().max() + OF_OUTPUT * whole.abs().max()
    return bool((cut - expected).abs().max() <= limit)
