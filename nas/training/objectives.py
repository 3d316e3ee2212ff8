"""What is minimized: plain functions that make an `Objective` for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data.augment import resize
from nas.supernet.supernet import Supernet
from nas.training.loop import Objective
from nas.training.samplers import Sampler

# images (N, C, H, W) -> logits (N, classes): a module, or one behind a resize
Network = Callable[[Tensor], Tensor]


def at_resolution(network: Network, side: int) -> Network:
    """Resize the images that `network` reads to side x side: batches have the resolution of the data, not of the network."""
    return lambda images: network(resize(images, side))


def soft_cross_entropy(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of `logits` against the teacher's probabilities, both (N, classes) and softened by `temperature`.

    Times its square, so that gradients keep their size (Hinton et al. 2015).
    """
    soft = (teacher.float() / temperature).softmax(1)
    return temperature**2 * F.cross_entropy(logits.float() / temperature, soft)


@dataclass(frozen=True)
class Distillation:
    """`share` of the loss is the teacher's, whose probabilities are softened by `temperature`; the rest is the labels'."""

    share: float = 0.5
    temperature: float = 1.0
    smoothing: float = 0.0


# for a student that starts near its teacher: a teacher that knows its training images by heart tells more at a temperature
SOFT = Distillation(share=0.9, temperature=4.0)


def classification(network: Network, smoothing: float = 0.0) -> Objective:
    """Cross-entropy with label smoothing; targets are classes (N,) or probabilities (N, classes)."""

    def losses(images: Tensor, targets: Tensor, step: int) -> Iterator[Tensor]:
        yield F.cross_entropy(network(images).float(), targets, label_smoothing=smoothing)

    return losses


def distillation(network: Network, teacher: Network, config: Distillation = Distillation()) -> Objective:
    """Weighted mean of label and teacher cross-entropy; both see the same view (Beyer et al. 2022).

    The teacher is in evaluation mode.
    """

    def losses(images: Tensor, targets: Tensor, step: int) -> Iterator[Tensor]:
        with torch.no_grad():
            soft = teacher(images)
        logits = network(images)
        label = F.cross_entropy(logits.float(), targets, label_smoothing=config.smoothing)
        yield (1 - config.share) * label + config.share * soft_cross_entropy(logits, soft, config.temperature)

    return losses


def in_place(supernet: Supernet, sampler: Sampler, smoothing: float = 0.0) -> Objective:
    """In-place distillation (Yu and Huang 2019) over the networks that `sampler` draws for a step.

    The first of them, the largest, learns from the labels; the others learn from it.
    """

    def losses(images: Tensor, targets: Tensor, step: int) -> Iterator[Tensor]:
        largest, *others = sampler(step)
        logits = supernet(images, largest)
        yield F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        soft = logits.detach()
        for arch in others:
            yield soft_cross_entropy(supernet(images, arch), soft)

    return losses
