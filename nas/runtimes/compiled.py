"""Runtime `torch-compile`: the same networks as `torch`, compiled by TorchInductor."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx
from torch._dynamo.exc import TorchDynamoException

from nas.errors import InvalidSetting
from nas.plan import Plan
from nas.runtimes.eager import PRECISIONS, kernel, of_file, of_plan
from nas.runtimes.runtime import Kernel, Setting, check_file


class Compiled:
    """Plans and torch.export files through torch.compile: the whole graph, for one shape.

    Builds compile, which takes seconds, and set the threads of the whole process.
    """

    suffix = ".pt2"
    precisions = PRECISIONS

    def version(self) -> str:
        """Version of torch."""
        return torch.__version__

    def build(self, plan: Plan, setting: Setting) -> Kernel:
        """Compile `plan` with random weights, and run it on random images. Raises InvalidSetting if it cannot be compiled."""
        return _compiled(*of_plan(plan, setting), setting)

    def load(self, path: Path, example: Tensor, setting: Setting) -> Kernel:
        """Compile the file at `path`, and run it on the images `example` (N, C, H, W). Raises InvalidSetting as `build`."""
        check_file(self, path)
        return _compiled(*of_file(path, example, setting), setting)


def _compiled(graph: fx.GraphModule, images: Tensor, setting: Setting) -> Kernel:
    run = torch.compile(graph, fullgraph=True, dynamic=False)
    try:
        with torch.inference_mode():
            run(images)
    except TorchDynamoException as error:
        cause = str(error).strip().partition("\n")[0]
        raise InvalidSetting(
            f"torch.compile failed on {setting.device} in {setting.precision} ({cause}); "
            "it needs a C++ compiler such as g++, on a graphics card Triton: install it, or use --runtime torch"
        ) from error
    return kernel(run, images, setting)
