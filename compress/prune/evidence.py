"""Evidence: what importances are judged by: calibration batches, and the gradients of the loss on them, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.prune.slices import called
from nas.cost.evaluation_mode import evaluation_mode

Batch = tuple[Tensor, Tensor]
# images whose loss is differentiated at once: the fewer, the nearer squares come to those of single images
TOGETHER = 8


@dataclass(frozen=True)
class Evidence:
    """Batches of images (N, C, H, W) and labels (N,) on the device of the network, and gradients by parameter name.

    `shape` is that of one image, for what needs no images. `gradients` are of the mean loss over all images; `curvatures` the
    means of the squared gradients of a few images, which is an estimate of the diagonal of the Hessian (empirical Fisher
    information).
    """

    batches: tuple[Batch, ...] = ()
    seed: int = 0
    shape: tuple[int, int, int] | None = None
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    curvatures: Mapping[str, Tensor] = field(default_factory=dict)


def gather(module: nn.Module, batches: Sequence[Batch], seed: int) -> Evidence:
    """Differentiate the loss on `batches`, in evaluation mode; nothing is set on `module`, whose outputs are logits."""
    parameters = {name: p.detach().requires_grad_() for name, p in module.named_parameters()}
    gradients = {name: torch.zeros_like(p) for name, p in parameters.items()}
    curvatures = {name: torch.zeros_like(p) for name, p in parameters.items()}
    total = sum(len(labels) for _, labels in batches)
    with evaluation_mode(module), torch.enable_grad():
        for images, labels in batches:
            for x, y in zip(images.split(TOGETHER), labels.split(TOGETHER), strict=True):
                mean = F.cross_entropy(called(module, parameters, x), y)
                slopes = torch.autograd.grad(mean, list(parameters.values()), allow_unused=True)
                for name, slope in zip(parameters, slopes, strict=True):
                    if slope is not None:
                        gradients[name] += slope * (len(y) / total)
                        curvatures[name] += slope.square() * (len(y) / total)
    return Evidence(tuple(batches), seed, gradients=gradients, curvatures=curvatures)


@torch.no_grad()
def loss(module: nn.Module, parameters: Mapping[str, Tensor], batches: Sequence[Batch]) -> float:
    """Mean cross-entropy over all images in evaluation mode, with some parameters of `module` replaced."""
    total = 0.0
    with evaluation_mode(module):
        for images, labels in batches:
            logits = called(module, dict(parameters), images)
            total += float(F.cross_entropy(logits, labels, reduction="sum"))
    return total / sum(len(labels) for _, labels in batches)
