"""What the files of a delivered network are checked with: images to compare answers on, and the clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nas.budget import Metric
from nas.data.dataset import Dataset, plain_batches
from nas.errors import InvalidSetting, VerificationFailed
from nas.evaluation.supernet import prepared
from nas.latency.bench import Bench
from nas.runtimes import named
from nas.torch_seeding import generator


@contextmanager
def deliverable(name: str) -> Iterator[None]:
    """Refuse the network of a user that cannot be exported as it is, before any work on it. Raises InvalidSetting."""
    try:
        yield
    except VerificationFailed as error:
        raise InvalidSetting(
            f"{name} cannot be delivered, for no file of it can be written ({error}); compute that part by other operations, "
            "or leave it out of the module and apply it to what the network puts out"
        ) from error


def comparison_images(data: Dataset | None, wanted: int, shape: tuple[int, int, int]) -> Tensor:
    """Up to `wanted` validation images of `shape` (C, H, W), normalized, on the CPU; noise where there are no data."""
    if data is None:
        return torch.randn(wanted, *shape, generator=generator(0, "images"))
    batches = plain_batches(len(data.val), wanted)[:1]
    return next(x for x, _ in prepared(data.val, batches, data, shape[1], torch.device("cpu"))).contiguous()


def file_latency(bench: Bench, folder: Path, example: Tensor) -> Metric:
    """Time the delivered file in the target runtime on this machine; `example` is one image (1, C, H, W)."""
    path = folder / f"model{named(bench.name).suffix}"
    images = example.expand(bench.setting.batch, -1, -1, -1).contiguous()
    metric = bench.judge_files({path: images})[path].metric
    return replace(metric, context=f"{bench.target}; {metric.context}")
