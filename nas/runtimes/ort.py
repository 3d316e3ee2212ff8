"""Runtime `onnxruntime`: the default on processors. The only file that imports onnxruntime."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from nas.errors import InvalidSetting
from nas.files import read_regular
from nas.plan import Plan
from nas.runtimes.onnx_graph import onnx_bytes
from nas.runtimes.runtime import Kernel, Setting, check_file, random_images

if TYPE_CHECKING:  # loaded when it runs: most commands need no onnxruntime
    import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CALIBRATION_BATCHES = 2
_ERRORS_ONLY = 3
_KERNEL = "_kernel_time"


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX files in onnxruntime; int8 by static quantization with QDQ nodes, per-channel weights."""

    suffix: str = ".onnx"
    precisions: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: MappingProxyType({"cpu": ("fp32", "int8"), "cuda": ("fp32",)})
    )

    def version(self) -> str:
        """Version of onnxruntime."""
        import onnxruntime

        return onnxruntime.__version__

    def build(self, plan: Plan, setting: Setting) -> Kernel:
        """Run `plan` with random weights on random images."""
        model = onnx_bytes(plan, setting.batch)
        images = random_images(plan, setting.batch)
        if setting.precision == "int8":
            model = quantized(model, images)
        return _kernel(session(model, setting), images)

    def load(self, path: Path, example: Tensor, setting: Setting) -> Kernel:
        """Run the file at `path` on the images `example` (N, C, H, W); one call gives its first output."""
        check_file(self, path)
        return _kernel(session(read_regular(path), setting), example.numpy())


def session(model: bytes, setting: Setting) -> onnxruntime.InferenceSession:
    """Open a model with as many threads as `setting` has. Raises InvalidSetting if its device is not there."""
    import onnxruntime

    provider = PROVIDERS[setting.device_type]
    if provider not in onnxruntime.get_available_providers():
        raise InvalidSetting(f"this onnxruntime has no {provider}; pip install onnxruntime-gpu, or use --runtime torch")
    return onnxruntime.InferenceSession(model, _options(setting), providers=[provider])


def _options(setting: Setting) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    return options


def runner(model: bytes, setting: Setting) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images (N, C, H, W) to the first output of a model."""
    opened = session(model, setting)
    name = opened.get_inputs()[0].name
    return lambda images: opened.run(None, {name: images})[0]


@dataclass(frozen=True)
class Ran:
    """An operator of a model as onnxruntime ran it: after fusing, with the median of its times, and the type that it reads."""

    name: str
    op: str
    ms: float
    reads: str = ""


def operators(path: Path, images: np.ndarray, setting: Setting, passes: int = 15) -> list[Ran]:
    """What a file spends its time on: `passes` runs on `images`, with onnxruntime's profiler, which slows them a little."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = _options(setting)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        opened = onnxruntime.InferenceSession(read_regular(path), options, providers=[PROVIDERS[setting.device_type]])
        for _ in range(passes):
            opened.run(None, {opened.get_inputs()[0].name: images})
        events = json.loads(Path(opened.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            args = event["args"]
            reads = next((kind for given in args.get("input_type_shape", ()) for kind in given), "")
            key = event["name"].removesuffix(_KERNEL), args["op_name"], reads
            times.setdefault(key, []).append(event["dur"] / 1000)
    return [Ran(name, op, statistics.median(values), reads) for (name, op, reads), values in times.items()]


def quantized(model: bytes, images: np.ndarray) -> bytes:
    """Quantize statically to int8, calibrated on `images`: QDQ format, weights per channel, for timing alone."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # slow to import, and rarely wanted
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / name for name in ("fp32.onnx", "prepared.onnx", "int8.onnx"))
        source.write_bytes(model)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            _Images(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return target.read_bytes()


class _Images:
    """What onnxruntime calibrates on: a few batches, then None."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter([images] * CALIBRATION_BATCHES)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Give the next batch."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _kernel(opened: onnxruntime.InferenceSession, images: np.ndarray) -> Kernel:
    given = {opened.get_inputs()[0].name: np.ascontiguousarray(images)}
    return lambda: opened.run(None, given)[0]
