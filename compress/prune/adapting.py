"""A module as a user has it, made one that can be worked on: unwrapped, with plain weights in fp32, and with logits alone.

Each step leaves what the network computes in evaluation as it is, and says what it did.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from dataclasses import fields as fields_of
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

WRAPPERS = 4  # around each other
LOGITS = "logits"
Key = int | str
_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside DataParallel, DistributedDataParallel and torch.compile, which are about how it is run."""
    for _ in range(WRAPPERS):
        if isinstance(module, nn.DataParallel | DistributedDataParallel):
            module = module.module
        elif isinstance(module, OptimizedModule):
            module = module._orig_mod
    return module


def materialized(module: nn.Module, example: Tensor) -> nn.Module:
    """`module`, whose lazy layers have got their shapes by one run on `example` (N, C, H, W)."""
    if any(isinstance(part, LazyModuleMixin) for part in module.modules()):
        with _evaluating(module), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that lazy modules are new
            module(example)
    return module


def plain(module: nn.Module) -> list[str]:
    """Turn computed weights into weights, and all numbers into fp32 on the CPU, in place; what was done, in words.

    Weight and spectral norm, parametrizations and the masks of torch.nn.utils.prune are folded: in evaluation the weights are
    constant, and only plain ones can be cut.
    """
    with _evaluating(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older forms are deprecated
        folded = sorted({kind for part in list(module.modules()) for kind in _folded(part)})
    told = [f"{' and '.join(folded)} folded into the weights"] if folded else []
    numbers = [*module.parameters(), *module.buffers()]
    others = sorted({_NAMES.get(t.dtype, str(t.dtype)) for t in numbers if t.is_floating_point() and t.dtype != torch.float32})
    if others:
        module.float()
        told.append(f"weights in {' and '.join(others)} are taken in fp32")
    if any(t.device.type not in ("cpu", "meta") for t in numbers):
        module.cpu()
    return told


def _folded(part: nn.Module) -> Iterator[str]:
    for hook in list(part._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(part, hook.name)
            yield "weight norm"
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(part, hook.name)
            yield "spectral norm"
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(part, hook._tensor_name)
            yield "masks of torch.nn.utils.prune"
    if parametrize.is_parametrized(part):
        assert isinstance(part.parametrizations, nn.ModuleDict)
        for name in list(part.parametrizations):
            parametrize.remove_parametrizations(part, name, leave_parametrized=True)
            weight = getattr(part, name)
            if not isinstance(weight, nn.Parameter):  # torch leaves what several tensors made as a buffer
                delattr(part, name)
                part.register_parameter(name, nn.Parameter(weight.detach().clone()))
            yield "parametrizations"


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Hold a module in evaluation mode, and give each of its parts its own mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


# -- outputs


class Logits(nn.Module):
    """A network of several outputs, of which `key` alone is given."""

    def __init__(self, network: nn.Module, key: Key) -> None:
        super().__init__()
        self.network, self.key = network, key

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        return outputs_of(self.network(x))[self.key]


@dataclass(frozen=True)
class Chosen:
    """The output that is taken for the logits; None where several may be meant, or none is. `shapes` tells of all."""

    key: Key | None
    shapes: str


def outputs_of(output: Any) -> dict[Key, Any]:  # noqa: ANN401 - whatever a forward returns
    """The parts of an output by name or place; one that is no container has the name `logits`."""
    if isinstance(output, Mapping):
        return dict(output)
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields_of(output)}
    if isinstance(output, tuple) and hasattr(output, "_fields"):  # a named tuple
        return dict(zip(output._fields, output, strict=True))
    return dict(enumerate(output)) if isinstance(output, tuple | list) else {LOGITS: output}


def chosen_logits(module: nn.Module, example: Tensor, classes: int | None) -> Chosen:
    """Which of several outputs of `module` are the logits.

    The one of that name, the only one of shape (N, K), that with as many columns as there are classes, or that which no other
    output is computed from: features lead to logits, never back.
    """
    with torch.enable_grad(), _evaluating(module):
        parts = outputs_of(module(example.detach().requires_grad_()))
    shapes = ", ".join(f"{key}: {tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__}" for key, t in parts.items())
    rows = {k: t for k, t in parts.items() if isinstance(t, Tensor) and t.ndim == 2 and len(t) == len(example)}
    fitting = [k for k, t in rows.items() if t.shape[1] == classes]
    for keys in ([LOGITS] if LOGITS in rows else [], list(rows), fitting, _last(rows)):
        if len(keys) == 1:
            return Chosen(keys[0], shapes)
    return Chosen(None, shapes)


def _last(rows: Mapping[Key, Tensor]) -> list[Key]:
    """The outputs that none of the others is computed from."""
    return [key for key, t in rows.items() if not any(_leads_to(t, other) for k, other in rows.items() if k != key)]


def _leads_to(tensor: Tensor, other: Tensor) -> bool:
    if not (tensor.requires_grad and other.requires_grad):
        return False
    return torch.autograd.grad(other.sum(), tensor, allow_unused=True, retain_graph=True)[0] is not None
