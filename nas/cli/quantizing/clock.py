"""The clock decides: fp32, bf16 and int8 of one network side by side in one runtime, and which layers cost the time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.export import write_format
from compress.quantize.graph import Layer, Network
from nas.budget import Metric
from nas.cli.quantizing.job import INT8, QuantizeJob
from nas.cli.timing import FORMATS
from nas.runtimes import named, runs
from nas.runtimes.ort import Ran, operators
from nas.runtimes.runtime import Setting
from nas.torch_seeding import generator

FP32, BF16 = "fp32", "bf16"
# int8 that is not this much faster is not faster
FASTER, FASTER_BY = 0.95, 0.97
MOST_COSTLY = 5
# what an integer kernel must sum up for each output to be worth its rounding
FEW_READ = 32
_CONVERT = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape", "ReorderInput", "ReorderOutput", "Pad", "Slice"}
_INTEGER = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat"}
_KIND = re.compile(r"(?:node_)?(conv\dd|linear)(?:_(\d+))?(?:_|$)")


@dataclass
class Clock:
    """Times files beside the original in fp32, which is exported once; files go to `folder`."""

    job: QuantizeJob
    folder: Path
    original: Path | None = None

    def exported(self, module: nn.Module, name: str) -> Path:
        """Write a network as the file that the target runtime runs."""
        suffix = named(self.job.bench.name).suffix
        path = self.folder / f"{name}{suffix}"
        write_format(FORMATS[suffix], module, self.images()[:1], path)
        return path

    def of_original(self) -> Path:
        """The file of the original."""
        if self.original is None:
            module = self.job.original.module.cpu().to(memory_format=torch.contiguous_format)
            self.original = self.exported(module, "original")
        return self.original

    def side_by_side(self, path: Path) -> dict[str, Metric]:
        """Times of the original in fp32, in bf16 where the runtime has it, and of a quantized file, by precision."""
        cases = {FP32: (self.of_original(), FP32), INT8: (path, INT8)}
        if runs(self.job.bench.name, replace(self.job.bench.setting, precision=BF16)):
            cases[BF16] = (self.of_original(), BF16)
        times = self.job.bench.time_cases(cases, self.images())
        target = str(self.job.bench.target)
        return {name: replace(t.metric, context=f"{target}; {t.metric.context}") for name, t in times.items()}

    def fastest(self, files: dict[str, Path]) -> str:
        """The name of the file that runs fastest; the first one, unless another one is faster by more than noise."""
        times = self.job.bench.time_cases({name: (path, INT8) for name, path in files.items()}, self.images())
        first = next(iter(files))
        best = min(times, key=lambda name: times[name].ms)
        return best if times[best].ms < FASTER_BY * times[first].ms else first

    def images(self) -> Tensor:
        """Noise of the shape that is timed."""
        return torch.randn(self.job.settings.batch, *self.job.original.shape, generator=generator(0, "images"))

    def costly(self, path: Path) -> list[dict[str, Any]]:
        """The layers that take most of a quantized file's time, with the reason where there is one; of onnxruntime alone."""
        if self.job.bench.name != "onnxruntime":
            return []
        setting = Setting("cpu", INT8, self.job.settings.batch, self.job.bench.setting.threads)
        return costly_of(operators(path, self.images().numpy(), setting), self.job.network)


def costly_of(ran: Sequence[Ran], network: Network) -> list[dict[str, Any]]:
    """The operators that take the most time: layer, share of the whole, and why integers do not help it."""
    whole = sum(one.ms for one in ran) or 1.0
    slowest = sorted(ran, key=lambda one: -one.ms)[:MOST_COSTLY]
    return [{"layer": _layer_name(x, network), "share": x.ms / whole, "reason": _reason(x, network)} for x in slowest]


def _layer(one: Ran, network: Network) -> Layer | None:
    """The layer that an operator computes: exporters number the operations of a kind in order."""
    match = _KIND.match(one.name)
    if match is None or one.op in _CONVERT:
        return None
    nodes = {node.name: node for node in network.module.graph.nodes}
    same = [x for x in network.layers if str(nodes[x.node].target).startswith(f"aten.{match[1]}.")]
    place = int(match[2] or 0)
    return same[place] if place < len(same) else None


def _layer_name(one: Ran, network: Network) -> str:
    layer = _layer(one, network)
    return layer.name if layer else f"{one.op} {one.name}"


def _reason(one: Ran, network: Network) -> str:
    layer = _layer(one, network)
    if one.op in _CONVERT:
        return "moves or converts values"
    if one.op not in _INTEGER and not one.op.startswith("QLinear"):
        return f"runs in fp32, as {one.op}"
    if layer is None:
        return ""
    reads = layer.params // layer.channels
    if reads < FEW_READ:
        return f"few products a value: each output sums {reads}, as depthwise layers do"
    return ""
