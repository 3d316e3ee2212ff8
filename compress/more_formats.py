"""Formats that `nas export` writes beside those of every delivery; their packages are extras.

A folder holds what a format needs: OpenVINO writes two files, the graph beside its weights.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.executorch import load_executorch, write_executorch
from compress.export import FORMATS, ExportFormat, write_onnx
from nas.runtimes.openvino import open_file, save_file


def write_openvino(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write OpenVINO's .xml, and the weights beside it as .bin, in fp32. Raises MissingPackage."""
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "model.onnx"
        write_onnx(module, example, onnx)
        save_file(onnx, path)


def load_openvino(path: Path, precision: str = "fp32") -> Callable[[Tensor], Tensor]:
    """Open a file of OpenVINO, or of ONNX, on the CPU."""
    run = open_file(path, precision)
    return lambda images: torch.from_numpy(run(images.numpy()))


def write_torchscript(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write a traced TorchScript archive, which libtorch and torch.jit.load read."""
    with torch.no_grad(), _deprecated():
        traced = torch.jit.trace(module, torch.zeros(2, *example.shape[1:], dtype=example.dtype))
        content = io.BytesIO()
        torch.jit.save(traced, content)
    path.write_bytes(content.getbuffer())


def load_torchscript(path: Path) -> Callable[[Tensor], Tensor]:
    """Open a TorchScript archive on the CPU."""
    with _deprecated():
        return torch.jit.load(str(path), map_location="cpu")


EXPORTS: Mapping[str, ExportFormat] = {
    **FORMATS,
    "openvino": ExportFormat(".xml", write_openvino, load_openvino),
    "executorch": ExportFormat(".pte", write_executorch, load_executorch),
    "torchscript": ExportFormat(".pt", write_torchscript, load_torchscript),
}


class _deprecated(warnings.catch_warnings):  # noqa: N801 - a context like its parent
    """Torch says that TorchScript is deprecated; who asks for it knows."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r".*torch\.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
