"""Training with zeros: weights that are masked before each step, more of them as the training goes on.

The masks are a function of the weights and the step alone, so a training that is resumed needs nothing beside its checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress.prune.execution import Order
from compress.prune.unstructured import Masks, apply_masks, magnitude_mask, sparsity_at
from nas.errors import InvalidSetting, not_known
from nas.training.loop import Objective

# what may stand in the place of a ReLU; none of them has parameters
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "mish": nn.Mish,
    "elu": nn.ELU,
    "leaky-relu": nn.LeakyReLU,
}
_RELUS = frozenset({F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


@dataclass(frozen=True)
class Ramp:
    """Zeros that rise from none to the share `sparsity` over `steps` steps, cubically (Zhu & Gupta 2017), and stay there.

    `pattern` is one of compress.prune.unstructured.PATTERNS. Those of N of M weights rise in steps of 1/M, up to what is
    nearest to `sparsity`. Raises InvalidSetting.
    """

    sparsity: float
    pattern: str
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidSetting(f"steps is {self.steps}; the zeros of a network rise over 1 step or more")
        magnitude_mask(nn.Identity(), self.sparsity, self.pattern)  # refuses now what it would refuse at the end of the ramp


def masked(objective: Objective, module: nn.Module, ramp: Ramp) -> Objective:
    """The same objective for weights of `module` of which the smallest are set to zero before each step.

    Weights that are zero get gradients, too: those that grow again faster than others take their places, also after the ramp
    (iterative hard thresholding, Jin et al. 2016). The last step moves weights once more, so `finish` comes after it.
    """

    def losses(images: Tensor, targets: Tensor, step: int) -> Iterator[Tensor]:
        _mask(module, sparsity_at(step, ramp.steps, ramp.sparsity), ramp.pattern)
        yield from objective(images, targets, step)

    return losses


def finish(module: nn.Module, ramp: Ramp) -> Masks:
    """Set the weights to zero that a trained `module` can do without, in place; returns the masks.

    A training that ended before the ramp did gets all of its zeros here.
    """
    return _mask(module, ramp.sparsity, ramp.pattern)


def activated(module: nn.Module, name: str, example: Tensor) -> nn.Module:
    """A copy of `module` with another activation, one of ACTIVATIONS, in the place of each nn.ReLU.

    Sparse networks prefer others than those that were made for dense ones (SAFS, Loni et al. 2023). The copy has the weights
    of `module`, and has to be trained. `example` (N, C, H, W) is run in evaluation mode, to find a ReLU that is called as a
    function and so is out of reach. Raises InvalidSetting if there is such a one, or if there is none at all.
    """
    if name not in ACTIVATIONS:
        raise InvalidSetting(f"activation {not_known(name, ACTIVATIONS)}")
    if not any(isinstance(part, nn.ReLU) for part in module.modules()) or _calls_relu(module, example):
        raise InvalidSetting(
            f"activation {name!r} cannot replace the ReLUs of {type(module).__name__}: all of them must be nn.ReLU modules, "
            "none a function that its forward calls; keep its activation, or give a network with modules"
        )
    return _replaced(module, ACTIVATIONS[name])


def _mask(module: nn.Module, sparsity: float, pattern: str) -> Masks:
    masks = magnitude_mask(module, sparsity, pattern)
    apply_masks(module, masks)
    return masks


def _replaced(module: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    network = copy.deepcopy(module)
    relus = [(name, part) for name, part in network.named_modules(remove_duplicate=False) if isinstance(part, nn.ReLU)]
    for name, part in relus:
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, make().train(part.training))
    return network


def _calls_relu(module: nn.Module, example: Tensor) -> bool:
    """Tell whether a ReLU is left where no module is one. Raises InvalidSetting if `module` cannot be run."""
    with _Functions() as functions:
        Order(_replaced(module, nn.Identity).eval(), example)
    return not _RELUS.isdisjoint(functions.called)


class _Functions(TorchFunctionMode):
    """Notes the functions that are called on tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[Callable[..., object]] = set()

    def __torch_function__(
        self, func: Callable[..., object], types: object, args: tuple = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        """Call a function, and note it."""
        self.called.add(func)
        return func(*args, **(kwargs or {}))
