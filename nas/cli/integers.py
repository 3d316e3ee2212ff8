"""Networks of a search in int8: quantized after training, timed and handed over as integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor, fx

from compress.export import write_files
from compress.quantize.bits import delivered_cost
from compress.quantize.convert import converted
from compress.quantize.formats import INT8 as EIGHT_BITS
from compress.quantize.graph import Network, network_of
from compress.quantize.ptq import PtqConfig, Quantized, quantize
from compress.quantize.saved import QUANTIZATION, about_of, points_of, reconverted
from compress.quantize.scheme import uniform
from compress.verify import VerifyInputs, verify
from nas import files
from nas.architecture import Architecture
from nas.budget import Metric
from nas.cli.checking import file_latency
from nas.cli.job import INT8, Job
from nas.cli.progress import log
from nas.cli.quantized import in_integers
from nas.cli.scoring import file_answers, opened_in, scores_row
from nas.cost.recount import recount
from nas.data.dataset import epoch_batches
from nas.evaluation.supernet import accuracy, prepared, resolution_of

CALIBRATED_IMAGES, BATCH, COMPARED = 512, 64, 8
# ranges do not change the time
FOR_TIMING = PtqConfig("min-max", equalize=False, correct_bias=False)


def wanted(job: Job) -> bool:
    """Whether a search delivers integers."""
    return job.settings.precision == INT8


def for_timing(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """A network of integers that is right for its time alone, calibrated on `example` (N, C, H, W)."""
    network = _network(module, example)
    scheme = uniform(network, EIGHT_BITS, EIGHT_BITS)
    return converted(quantize(network, scheme, [example], FOR_TIMING).module, network)


@dataclass(frozen=True)
class Rounded:
    """A delivered network in integers, the one in floating point that it was made of, and what quantization.json says."""

    module: fx.GraphModule
    found: Quantized
    about: dict[str, Any]

    @property
    def network(self) -> Network:
        """The network in floating point."""
        return self.found.network


def rounded(job: Job, arch: Architecture, module: nn.Module, described: Mapping[str, Any]) -> Rounded:
    """Quantize a network (evaluation mode, CPU) on training images; `described` is the content of its architecture.json."""
    side = resolution_of(arch)
    images = _images(job, side)
    network = _network(module, images[0])
    scheme = uniform(network, EIGHT_BITS, EIGHT_BITS)
    log(f"quantizing to int8 on {sum(map(len, images))} images")
    found = quantize(network, scheme, images, PtqConfig())
    source = {"architecture": described, "network": arch.key, "classes": None}
    shape = (job.data.channels, side, side)
    about = {**about_of(found, source, shape), "images": sum(map(len, images)), "points": points_of(found.module, network)}
    return Rounded(converted(found.module, network, images[0][:COMPARED]), found, about)


def write_verified(job: Job, made: Rounded, arch: Architecture, described: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the integer files of `folder`, reload, recount and time them; returns the content of verify.json."""
    images = torch.cat(_images(job, resolution_of(arch))[:2])
    write_files(folder, made.module, described, images[:1])
    files.replace(folder / QUANTIZATION, files.to_json(made.about))
    original = job.cost(arch)
    params = sum(p.numel() for p in made.network.module.parameters())
    original = replace(original, metrics={**original.metrics, "params": Metric(params, "parameters", "plan")})
    planned = delivered_cost(made.network, made.found.scheme, folder / "model.onnx", original)
    plain = VerifyInputs(
        folder=folder,
        module=made.module,
        rebuild=lambda: reconverted(made.network, made.about),
        images=images,
        plan_cost=planned,
        budgets=job.budgets,
        latency=file_latency(job.bench, folder, images[:1]),
        recount=recount,
    )
    return verify(in_integers(plain, made.network, planned.metrics["size_bytes"]))


def scores_of(job: Job, made: Rounded, arch: Architecture, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Validation accuracy of the rounded network, and test accuracy of the exported file; and what a summary says of them.

    Test data are read here.
    """
    side = resolution_of(arch)
    device = job.device
    seen = accuracy(made.found.module.to(device).eval(), job.data.val, job.data, side)
    run = opened_in(job.bench.name if job.bench else None, folder / "model.onnx")
    test = file_answers(run, job.data.load_test(), job.data, side, "scoring model.onnx")
    scores = {"val_accuracy": seen, "test_accuracy": test.accuracy}
    return scores, scores_row(job.data, scores, test)


def _network(module: nn.Module, example: Tensor) -> Network:
    channels, height, width = example.shape[1:]
    plain = module.eval().cpu().to(memory_format=torch.contiguous_format)
    return network_of(plain, (channels, height, width), example[:COMPARED])


def _images(job: Job, side: int) -> list[Tensor]:
    """Training images on the CPU, in batches."""
    size = min(BATCH, max(1, len(job.data.train) // 2))
    batches = epoch_batches(len(job.data.train), size, job.settings.seed, 0)[: CALIBRATED_IMAGES // BATCH]
    return [x for x, _ in prepared(job.data.train, batches, job.data, side, torch.device("cpu"))]
