"""Runtime `torch`: the operators of a network, called one after the other; on a graphics card replayed as a CUDA graph.

A file of torch.export spends more time in Python, on guards and on looking up its weights, than in the operators of a small
network. That is taken away: a network is recorded once for its shape, and only its operators run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from nas.plan import Plan
from nas.runtimes import pt2
from nas.runtimes.plan_module import PlanModule
from nas.runtimes.runtime import Kernel, Setting, check_file, random_images

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS: Mapping[str, tuple[str, ...]] = MappingProxyType({"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")})
WARM_UPS = 3


class Eager:
    """Plans and torch.export files in torch: evaluation mode, channels last, no autograd.

    Builds set the threads of the whole process.
    """

    suffix = ".pt2"
    precisions = PRECISIONS

    def version(self) -> str:
        """Version of torch."""
        return torch.__version__

    def build(self, plan: Plan, setting: Setting) -> Kernel:
        """Run `plan` with random weights on random images."""
        return kernel(*of_plan(plan, setting), setting)

    def load(self, path: Path, example: Tensor, setting: Setting) -> Kernel:
        """Run the file at `path` on the images `example` (N, C, H, W) in the precision of `setting`."""
        check_file(self, path)
        return kernel(*of_file(path, example, setting), setting)


def of_plan(plan: Plan, setting: Setting) -> tuple[fx.GraphModule, Tensor]:
    """The operators of a plan, and random images, on the device of `setting`."""
    return _recorded(PlanModule(plan), torch.from_numpy(random_images(plan, setting.batch)), setting)


def of_file(path: Path, example: Tensor, setting: Setting) -> tuple[fx.GraphModule, Tensor]:
    """The operators of a torch.export file, and the images, on the device of `setting`."""
    return _recorded(pt2.load(path).module(), example, setting)


def kernel(run: Callable[[Tensor], Tensor], images: Tensor, setting: Setting) -> Kernel:
    """One call of `run`, on a graphics card as the replay of a CUDA graph."""
    if setting.device_type == "cuda":
        return _captured(run, images)

    @torch.inference_mode()
    def call() -> Tensor:
        return run(images)

    return call


def _recorded(module: nn.Module, images: Tensor, setting: Setting) -> tuple[fx.GraphModule, Tensor]:
    """Set the threads, move `module` and `images` to device and precision, and record the operators for this shape.

    The graph has code of its own, which torch.compile needs: it keeps few variants of one piece of code.
    """
    torch.set_num_threads(setting.threads)
    device, dtype, layout = torch.device(setting.device), DTYPES[setting.precision], torch.channels_last
    module.requires_grad_(False).to(device, dtype).to(memory_format=layout)
    images = images.to(device, dtype).contiguous(memory_format=layout)
    return make_fx(module, pre_dispatch=True)(images), images


@dataclass(frozen=True)
class _Captured:
    """A CUDA graph. It knows weights and images by their addresses alone, hence `run` and `images` are kept."""

    graph: torch.cuda.CUDAGraph
    output: Tensor
    run: Callable[[Tensor], Tensor]
    images: Tensor

    def __call__(self) -> Tensor:
        """Enqueue one replay; the output is overwritten each time."""
        self.graph.replay()
        return self.output


@torch.inference_mode()
def _captured(run: Callable[[Tensor], Tensor], images: Tensor) -> _Captured:
    """Warm up on a side stream, as capturing asks for, and capture one call (torch.cuda.graph)."""
    with torch.cuda.device(images.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                run(images)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = run(images)
    return _Captured(graph, output, run, images)
