"""Batch-norm recalibration: the statistics of a network that was cut differ from those of the one that it was cut from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor


@torch.no_grad()
def recalibrate(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of all batch norms to the mean over `batches` of training images, in place.

    All else is run in evaluation mode, in which the module is left (Yu and Huang 2019, post-statistics). Without batches
    statistics stay as they are.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not any(layer.track_running_stats for layer in norms):
        module.eval()
        return
    with batch_statistics(module, momentum=None):  # None: the mean of all batches
        for number, images in enumerate(batches):
            if number == 0:
                for layer in norms:
                    layer.reset_running_stats()
            module(images)


@contextmanager
def batch_statistics(module: nn.Module, momentum: float | None = 0.0) -> Iterator[None]:
    """Run `module` in evaluation mode, but its batch norms on the statistics of the batch; leaves it in evaluation mode.

    Running statistics move by `momentum`: by default they stay as they are.
    """
    module.eval()
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    try:
        for layer in norms:
            layer.train()
            layer.momentum = momentum
        yield
    finally:
        for layer, old in zip(norms, momenta, strict=True):
            layer.momentum = old
        module.eval()
