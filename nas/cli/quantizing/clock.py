"""The clock decides: fp32, bf16 and int8 of one network side by side in one runtime."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.export import write_format
from nas.budget import Metric
from nas.cli.checking import deliverable
from nas.cli.quantizing.job import INT8, QuantizeJob
from nas.cli.timing import FORMATS
from nas.runtimes import named, runs
from nas.runtimes.ort import Ran, operators
from nas.runtimes.runtime import Setting
from nas.torch_seeding import generator

FP32, BF16 = "fp32", "bf16"
# int8 that is not this much faster is not faster
FASTER, FASTER_BY = 0.95, 0.97


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
            with deliverable(self.job.original.name):
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

    def ran(self, path: Path) -> list[Ran]:
        """What a quantized file spends its time on; of onnxruntime alone, which tells it."""
        if self.job.bench.name != "onnxruntime":
            return []
        setting = Setting("cpu", INT8, self.job.settings.batch, self.job.bench.setting.threads)
        return operators(path, self.images().numpy(), setting)
