"""Runtime: what runs a network on a device, and how it is set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from nas.errors import InvalidSetting
from nas.plan import Plan
from nas.seeding import numpy_rng

SEED = 0
Kernel = Callable[[], object]
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class Setting:
    """Device (cpu, cuda or cuda:N), precision, images a batch, processor threads.

    In torch the number of threads belongs to the whole process: the kernel that was built last sets it for all of them.
    """

    device: str = "cpu"
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        """Check device, batch and threads. Raises InvalidSetting."""
        if not _DEVICE.fullmatch(self.device):
            raise InvalidSetting(f"device {self.device!r} is not known; choose cpu, cuda or cuda:N")
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"{name}={getattr(self, name)} cannot be run; expected 1 or more")

    @property
    def device_type(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]


class Runtime(Protocol):
    """Builds kernels: one call of a kernel is one pass of a batch and gives its output.

    On a processor the pass is complete when the call returns, on a graphics card it is enqueued. Settings have passed
    nas.runtimes.check.
    """

    @property
    def precisions(self) -> Mapping[str, tuple[str, ...]]:
        """Device type -> the precisions that it runs there."""

    @property
    def suffix(self) -> str:
        """Suffix of the exported files that it runs: .onnx or .pt2."""

    def version(self) -> str:
        """Version of the package. Raises MissingPackage naming the extra to install."""

    def build(self, plan: Plan, setting: Setting) -> Kernel:
        """Run `plan` with random weights on random images, always the same. Raises InvalidSetting if it cannot be built."""

    def load(self, path: Path, example: Tensor, setting: Setting) -> Kernel:
        """Run the exported file at `path` as it is on the images `example` (N, C, H, W), float32, which give the batch.

        Raises InvalidSetting if there is no such file.
        """


def random_images(plan: Plan, batch: int) -> np.ndarray:
    """Normal numbers in the input shape of `plan`, (N, C, H, W), float32: no zeros and no denormals, which change the time."""
    shape = (batch, plan.input_channels, *plan.input_size)
    return numpy_rng(SEED, "images").standard_normal(shape, dtype=np.float32)


def check_file(runtime: Runtime, path: Path) -> None:
    """Raise InvalidSetting if there is no file at `path`, or not of the kind that `runtime` runs."""
    if path.suffix != runtime.suffix:
        raise InvalidSetting(
            f"{str(path)!r} is no {runtime.suffix} file, which this runtime runs; export one, or choose another"
        )
    if not path.is_file():
        raise InvalidSetting(f"there is no file {str(path)!r}; export the network again")
