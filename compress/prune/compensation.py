"""What is cut is made up for in closed form: layers that read fewer channels get weights that come nearest to their outputs.

He et al. 2017, "Channel pruning for accelerating very deep neural networks": least squares on the inputs that the layer has in
the whole network. No gradient, no label, one pass over some images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.prune.groups import Group
from compress.prune.slices import readers, silenced
from nas.torch_seeding import generator
from nas.training.calibration import batch_statistics

# places that are looked at of a layer in a batch, drawn at random: so many of an image, and at most
OF_AN_IMAGE, POSITIONS = 64, 8192
# equations that are solved in 64 bits; of more, the ridge is far above what 32 bits lose
PRECISE = 1024
# inputs of a layer, channels by kernel positions: the solution takes the cube of it
MOST_INPUTS = 5000
# of the mean variance, added to the diagonal: it keeps channels that repeat each other from getting huge weights
RIDGE = 1e-2


@dataclass(frozen=True)
class Moments:
    """Mean (D,) in float64 and covariance (D, D) in float32 of what a layer multiplies with its weights.

    D = input channels x kernel positions.
    """

    mean: Tensor
    covariance: Tensor


@torch.no_grad()
def moments(module: nn.Module, groups: Iterable[Group], batches: Sequence[Tensor], seed: int = 0) -> dict[str, Moments]:
    """Moments of the layers that read any of `groups`, by name, over batches of images, norms on batch statistics.

    Convolutions of several groups, transposed ones and layers of more than MOST_INPUTS inputs are left out.
    """
    names = dict.fromkeys(member.layer for group in groups for member in readers(group))
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = defaultdict(int)

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = _rows(layer, inputs[0].detach().float(), generator(seed, "positions", name, counts[name]))
            first, second = rows.sum(0), rows.T @ rows
            counts[name] += len(rows)
            if name not in sums:
                sums[name] = [first, second]
                return
            for total, more in zip(sums[name], (first, second), strict=True):
                total += more

        return note

    parts = dict(module.named_modules())
    layers = {name: parts[name] for name in names if _is_solvable(parts.get(name))}
    hooks = [layer.register_forward_pre_hook(noting(name)) for name, layer in layers.items()]
    try:
        with batch_statistics(module):
            for images in batches:
                module(images)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name in list(sums):
        first, second = sums.pop(name)
        mean = first.double() / counts[name]
        # in place: wide layers have covariances of 100 MB
        found[name] = Moments(mean, second.div_(counts[name]).addr_(mean.float(), mean.float(), alpha=-1))
    return found


@torch.no_grad()
def compensated(
    module: nn.Module, cuts: Sequence[tuple[Group, Sequence[int]]], known: Mapping[str, Moments]
) -> dict[str, Tensor]:
    """Parameters with which nothing reads the given units, by name: those of `silenced`, solved anew where moments are known.

    Means are left to the bias of the layer, or to the norm after it.
    """
    found = silenced(module, cuts)
    gone: dict[str, set[int]] = defaultdict(set)
    for group, units in cuts:
        for member in readers(group):
            gone[member.layer].update(i for u in units for i in member.units[u])
    for name, channels in gone.items():
        if name in known and channels:
            layer = module.get_submodule(name)
            weight, bias = _solved(layer, sorted(channels), known[name])
            found[f"{name}.weight"] = weight
            if bias is not None:
                found[f"{name}.bias"] = bias
    return found


def _solved(layer: nn.Module, gone: list[int], known: Moments) -> tuple[Tensor, Tensor | None]:
    """Weights that are zero for the channels `gone`, and the bias that keeps the mean."""
    old: Tensor = layer.weight  # type: ignore[assignment]
    outs, ins = old.shape[:2]
    kept = torch.ones(ins, dtype=torch.bool, device=old.device)
    kept[gone] = False
    columns = kept.repeat_interleave(old[0, 0].numel())
    number = torch.float64 if int(columns.sum()) <= PRECISE else torch.float32
    weight = old.reshape(outs, -1).double()
    inner = known.covariance[columns][:, columns].to(number)
    ridge = RIDGE * inner.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    inner.diagonal().add_(ridge)
    # what is kept of the old weights plus what explains the rest: with an endless ridge, the old weights
    rest = weight[:, ~columns].to(number) @ known.covariance[~columns][:, columns].to(number)
    factor, failed = torch.linalg.cholesky_ex(inner)
    added = (torch.linalg.solve(inner, rest.T) if failed else torch.cholesky_solve(rest.T, factor)).T
    solved = torch.zeros_like(weight)
    solved[:, columns] = weight[:, columns] + added
    bias = layer.bias if isinstance(layer.bias, Tensor) else None
    moved = None if bias is None else (bias.double() + (weight - solved) @ known.mean).to(bias.dtype)
    return solved.reshape(old.shape).to(old.dtype), moved


def _is_solvable(layer: nn.Module | None) -> bool:
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
        return plain and layer.weight[0].numel() <= MOST_INPUTS
    return isinstance(layer, nn.Linear) and layer.in_features <= MOST_INPUTS


def _rows(layer: nn.Module, inputs: Tensor, drawn: torch.Generator) -> Tensor:
    """What the weights are multiplied with at up to POSITIONS places, (places, D)."""
    if isinstance(layer, nn.Linear):
        flat = inputs.reshape(-1, inputs.shape[-1])
        return flat[_places(len(flat), len(inputs), drawn).to(flat.device)]
    assert isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str)
    padded = F.pad(inputs, (layer.padding[1], layer.padding[1], layer.padding[0], layer.padding[0])).permute(0, 2, 3, 1)
    spans = [step * (kernel - 1) for step, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
    sides = [(padded.shape[1 + i] - spans[i] - 1) // layer.stride[i] + 1 for i in (0, 1)]
    places = _places(len(inputs) * sides[0] * sides[1], len(inputs), drawn).to(inputs.device)
    image, row, column = places // (sides[0] * sides[1]), places // sides[1] % sides[0], places % sides[1]
    offsets = (torch.arange(k, device=inputs.device) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    down, right = (x.flatten() for x in torch.meshgrid(*offsets, indexing="ij"))
    rows, columns = row[:, None] * layer.stride[0] + down, column[:, None] * layer.stride[1] + right
    return padded[image[:, None], rows, columns].transpose(1, 2).flatten(1)


def _places(number: int, images: int, drawn: torch.Generator) -> Tensor:
    """All places if they are few."""
    most = min(POSITIONS, OF_AN_IMAGE * images)
    return torch.arange(number) if number <= most else torch.randint(number, (most,), generator=drawn)
