"""The supernet: the weights of the largest network, from which every smaller one is a slice.

There are no elastic layers to keep in step with the delivered modules. A subnet runs as the very module that would be
delivered (`space.network(arch)`), given slices of the shared weights: `torch.func.functional_call`. So the supernet is
stateless, and what is trained is what is extracted.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn as nn
from torch import Tensor
from torch.func import functional_call

from nas.architecture import Architecture, SearchSpace
from nas.data.augment import resize
from nas.supernet.blocks import RESIDUAL_BLOCKS
from nas.torch_seeding import generator

SKELETONS = 128


class Supernet(nn.Module):
    """Shared weights of a search space. Norms use batch statistics; a subnet gets running ones when it is extracted."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__()
        self.space = space
        self.shared = without_statistics(space.network(space.largest()))
        initialize(self.shared, seed)
        self._skeletons: OrderedDict[str, nn.Module] = OrderedDict()

    def forward(self, x: Tensor, arch: Architecture) -> Tensor:
        """Run subnet `arch` on normalized images (N, C, H, W), resized to its resolution; gives (N, classes)."""
        x = resize(x, int(arch.choices["resolution"]))
        return functional_call(self._skeleton(arch), self.weights(arch), (x,), tie_weights=False)

    def weights(self, arch: Architecture) -> dict[str, Tensor]:
        """Slices of the shared parameters for `arch`, by parameter name; differentiable."""
        shared = self._parameters_by_name
        return {n: nested_slice(shared[n], p.shape) for n, p in self._skeleton(arch).named_parameters()}

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

    @property
    def _parameters_by_name(self) -> dict[str, nn.Parameter]:
        return dict(self.shared.named_parameters())

    def _skeleton(self, arch: Architecture) -> nn.Module:
        """The module of `arch` without storage; the most recent ones are kept, for building takes milliseconds."""
        if arch.key not in self._skeletons:
            with torch.device("meta"):
                self._skeletons[arch.key] = without_statistics(self.space.network(arch))
            if len(self._skeletons) > SKELETONS:
                self._skeletons.popitem(last=False)
        self._skeletons.move_to_end(arch.key)
        return self._skeletons[arch.key]


def nested_slice(full: Tensor, shape: torch.Size) -> Tensor:
    """The leading channels of `full`, and the centre of its kernel: a small kernel is the heart of the large one."""
    index = [slice(0, n) for n in shape[:2]]
    index += [slice((m - n) // 2, (m - n) // 2 + n) for m, n in zip(full.shape[2:], shape[2:], strict=True)]
    return full if full.shape == shape else full[tuple(index)]


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
