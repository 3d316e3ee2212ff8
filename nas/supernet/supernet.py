"""The supernet: the weights of the largest network, from which every smaller one is a slice.

There are no elastic layers to keep in step with the delivered modules. A subnet runs as the very module that would be
delivered (`space.network(arch)`), given slices of the shared weights: `torch.func.functional_call`. So the supernet is
stateless, and what is trained is what is extracted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.func import functional_call

from nas.architecture import Architecture, SearchSpace
from nas.data.augment import resize
from nas.supernet.blocks import RESIDUAL_BLOCKS
from nas.torch_seeding import generator

SKELETONS = 128
Index = tuple[slice, ...]


@dataclass(frozen=True)
class Skeleton:
    """The module of a subnet without storage, and where each of its parameters lies in the shared one (None: all of it)."""

    module: nn.Module
    slices: Mapping[str, Index | None]


class Supernet(nn.Module):
    """Shared weights of a search space. Norms use batch statistics; a subnet gets running ones when it is extracted."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__()
        self.space = space
        self.shared = without_statistics(space.shared_network())
        initialize(self.shared, seed)
        self._skeletons: OrderedDict[str, Skeleton] = OrderedDict()

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Run subnet `arch` on normalized images (N, C, H, W), resized to its resolution; gives (N, classes)."""
        x = resize(x, int(arch.choices["resolution"]))
        return functional_call(self._skeleton(arch).module, self.weights(arch), (x,), tie_weights=False)

    def weights(self, arch: Architecture) -> dict[str, Tensor]:
        """Slices of the shared parameters for `arch`, by parameter name; differentiable."""
        slices = self._skeleton(arch).slices
        shared = dict(self.shared.named_parameters())
        result: dict[str, Tensor] = {name: shared[name] for name, index in slices.items() if index is None}
        cut = {name: index for name, index in slices.items() if index is not None}
        return result | dict(zip(cut, NestedSlices.apply(tuple(cut.values()), *(shared[n] for n in cut)), strict=True))

    def extract(self, arch: Architecture) -> nn.Module:
        """Copy `arch` out as a plain module on the same device, norms with fresh statistics: recalibrate before use."""
        with torch.device("meta"):
            module = self.space.network(arch)
        weights = self.weights(arch)
        module.to_empty(device=next(iter(weights.values())).device)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(weights[name])
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
        return module.to(memory_format=torch.channels_last)

    def _skeleton(self, arch: Architecture) -> Skeleton:
        """How to run `arch`; the most recent ones are kept, for building one takes milliseconds."""
        if arch.key not in self._skeletons:
            with torch.device("meta"):
                module = without_statistics(self.space.network(arch))
            shared = {n: p.shape for n, p in self.shared.named_parameters()}
            slices = {n: nested_index(shared[n], p.shape) for n, p in module.named_parameters()}
            self._skeletons[arch.key] = Skeleton(module, slices)
            if len(self._skeletons) > SKELETONS:
                self._skeletons.popitem(last=False)
        self._skeletons.move_to_end(arch.key)
        return self._skeletons[arch.key]


def nested_index(full: torch.Size, shape: torch.Size) -> Index | None:
    """The leading channels, and the centre of the kernel: a small kernel is the heart of the large one. None: all."""
    if full == shape:
        return None
    channels = [slice(0, n) for n in shape[:2]]
    kernel = [slice((m - n) // 2, (m - n) // 2 + n) for m, n in zip(full[2:], shape[2:], strict=True)]
    return (*channels, *kernel)


class NestedSlices(torch.autograd.Function):
    """Slices of many tensors as one node of the graph: a node for each dimension of each tensor costs more than the slice.

    The slices are dense copies, in the memory format of the whole tensors, which convolutions would make of them anyway.
    """

    @staticmethod
    def forward(ctx: Any, indices: tuple[Index, ...], *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Cut `tensors[i][indices[i]]`."""
        ctx.indices = indices
        ctx.save_for_backward(*tensors)
        return tuple(tensor[index].clone() for tensor, index in zip(tensors, indices, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Put each gradient into zeros of the whole shape."""
        whole = []
        for tensor, index, gradient in zip(ctx.saved_tensors, ctx.indices, gradients, strict=True):
            whole.append(torch.zeros_like(tensor))
            whole[-1][index] = gradient
        return (None, *whole)


def without_statistics(module: nn.Module) -> nn.Module:
    """Make the norms of `module` use batch statistics always, in place."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return module


def initialize(module: nn.Module, seed: int) -> None:
    """Draw all weights from `seed` alone: He et al. 2015 for convolutions, zero for the last norm of a residual branch."""
    rng = generator(seed, "initialize")
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=rng)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=rng)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for block in module.modules():
        if isinstance(block, RESIDUAL_BLOCKS) and block.residual and block.last.norm is not None:
            nn.init.zeros_(block.last.norm.weight)
    module.to(memory_format=torch.channels_last)
