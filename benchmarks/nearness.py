"""How far a network is from another one on images that neither has seen: validation images, changed, without their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.data.dataset import Dataset, Subset, plain_batches
from nas.evaluation.supernet import BATCH, prepared

# a network that knew the images by heart does not know these
CHANGES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "halves": lambda images: (images + images.roll(1, 0)) / 2,
    "swapped": lambda images: images[:, [1, 2, 0]],
    "turned": lambda images: images.rot90(1, (2, 3)),
}


@dataclass(frozen=True)
class Yardstick:
    """Changed images (N, C, H, W) in batches, and the log-probabilities (N, classes) that the original gives each batch."""

    images: tuple[Tensor, ...]
    expected: tuple[Tensor, ...]

    def away(self, module: nn.Module) -> float:
        """Mean Kullback-Leibler divergence of a network's answers from the original's, in nats."""
        pairs = zip(self.images, self.expected, strict=True)
        total = sum(float(F.kl_div(_answer(module, x), y, reduction="sum", log_target=True)) for x, y in pairs)
        return total / sum(map(len, self.images))


def yardstick(original: nn.Module, data: Dataset, count: int) -> Yardstick:
    """`count` validation images, each changed in all ways of CHANGES, and what `original` says of them."""
    part = replace(data, val=Subset(data.val, torch.arange(min(count, len(data.val)))))
    batches = plain_batches(len(part.val), BATCH)
    seen = [x for x, _ in prepared(part.val, batches, data, data.resolution, torch.device("cpu"))]
    images = tuple(change(x) for x in seen for change in CHANGES.values())
    return Yardstick(images, tuple(_answer(original, x) for x in images))


@torch.no_grad()
def _answer(module: nn.Module, images: Tensor) -> Tensor:
    module.eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = module(images.contiguous(memory_format=torch.channels_last))
    return logits.float().log_softmax(1)
