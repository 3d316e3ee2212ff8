"""Runtime `openvino`: ONNX files on Intel processors. The only file that imports openvino."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from nas.errors import InvalidSetting, MissingPackage
from nas.files import read_regular
from nas.plan import Plan
from nas.runtimes.onnx_graph import onnx_bytes
from nas.runtimes.ort import quantized
from nas.runtimes.runtime import Kernel, Setting, check_file, random_images

# what the operations that are not quantized compute in; without a hint OpenVINO takes bf16 where the processor has it
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVino:
    """ONNX files in OpenVINO with one stream, for latency; int8 by the quantization of onnxruntime."""

    suffix = ".onnx"
    precisions: Mapping[str, tuple[str, ...]] = MappingProxyType({"cpu": tuple(HINTS)})

    def version(self) -> str:
        """Version of openvino. Raises MissingPackage."""
        return _openvino().__version__.partition("-")[0]

    def build(self, plan: Plan, setting: Setting) -> Kernel:
        """Run `plan` with random weights on random images."""
        model, images = onnx_bytes(plan, setting.batch), random_images(plan, setting.batch)
        return _kernel(quantized(model, images) if setting.precision == "int8" else model, images, setting)

    def load(self, path: Path, example: Tensor, setting: Setting) -> Kernel:
        """Run the file at `path` on the images `example` (N, C, H, W); int8 is for files that are quantized."""
        check_file(self, path)
        return _kernel(read_regular(path), example.numpy(), setting)


def save_file(onnx: Path, path: Path) -> None:
    """Turn an ONNX file into OpenVINO's .xml and .bin, weights in fp32. Raises MissingPackage."""
    _openvino().save_model(_openvino().Core().read_model(str(onnx)), str(path), compress_to_fp16=False)


def open_file(path: Path, precision: str = "fp32") -> Callable[[np.ndarray], np.ndarray]:
    """Open a file of OpenVINO, or of ONNX: images (N, C, H, W) -> outputs. Raises MissingPackage."""
    network = _openvino().Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": HINTS[precision]})
    return lambda images: np.array(network(np.ascontiguousarray(images))[0])


def _openvino() -> Any:  # noqa: ANN401
    try:
        import openvino  # optional: the package may not be there
    except ImportError as error:
        raise MissingPackage("runtime 'openvino' needs the package openvino; pip install netcarver[openvino]") from error
    return openvino


def _kernel(model: bytes, images: np.ndarray, setting: Setting) -> Kernel:
    request = compiled_model(model, images.shape, setting).create_infer_request()
    request.set_input_tensor(_openvino().Tensor(np.ascontiguousarray(images)))
    return lambda: request.infer(share_outputs=True)[0]


def compiled_model(model: bytes, shape: tuple[int, ...], setting: Setting) -> Any:  # noqa: ANN401
    """Compile an ONNX model for images of `shape` (N, C, H, W). Raises InvalidSetting if the processor lacks the precision."""
    core = _openvino().Core()
    if setting.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InvalidSetting("this processor has no 'bf16' in openvino; use fp32")
    network = core.read_model(model)
    network.reshape(list(shape))
    config = {
        "INFERENCE_NUM_THREADS": setting.threads,
        "INFERENCE_PRECISION_HINT": HINTS[setting.precision],
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(network, "CPU", config)
