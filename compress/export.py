"""Write a network as safetensors weights and in the formats that deployment runtimes read, and read them back.

Adding a format is adding two functions and one line in FORMATS.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.deployment import write_deployment
from compress.portable import Portable
from compress.stored import WEIGHTS, save_weights, written_aside
from nas.errors import MachineFailed, MissingPackage, NasError, VerificationFailed
from nas.failures import machine_failure, probe
from nas.files import read_regular
from nas.runtimes import pt2
from nas.runtimes.ort import runner
from nas.runtimes.runtime import Setting

ARCHITECTURE = "architecture.json"
INPUT, OUTPUT = "images", "logits"
DYNAMIC_BATCH = ({0: torch.export.Dim("batch")},)
_COLOURS, MOST_WRAPPERS = re.compile(r"\x1b\[[\d;]*m"), 10
TRACED_IMAGES = 2
FIXED_SIZE = "Constraints violated"
ONNX_LIMIT = 2**31 - 1  # bytes of one protocol buffer


@dataclass(frozen=True)
class ExportFormat:
    """One file format: `write(module, example, path)` and `load(path)`, which gives images (N, C, H, W) -> logits."""

    suffix: str
    write: Callable[[nn.Module, Tensor, Path], None]
    load: Callable[[Path], Callable[[Tensor], Tensor]]


# -- formats


def write_onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write one self-contained ONNX file with the input `images` and the output `logits`, batch size dynamic."""
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    if size >= ONNX_LIMIT:
        raise VerificationFailed(f"the weights take {size} bytes; one ONNX file holds less than {ONNX_LIMIT}; use pt2")
    # traced here, because the exporter's own tracing falls back to a constant batch size where ours fails
    program = torch.onnx.export(
        traced(module, example),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=DYNAMIC_BATCH,
        verbose=False,
    )
    assert program is not None  # it is None for the old exporter alone
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces: they carry the paths of this machine
        _as_pooling(node)
    program.save(path, external_data=False)


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Open an ONNX file with onnxruntime on the CPU, with as many threads as torch has."""
    run = runner(read_regular(path), Setting(threads=torch.get_num_threads()))
    return lambda images: torch.from_numpy(run(images.numpy()))


def write_pt2(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write a `torch.export` archive, batch size dynamic."""
    program = traced(module, example)
    program.example_inputs = None  # the file needs none, and they would be stored pickled
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    content = io.BytesIO()  # torch would tell of a full disk in words of its own
    torch.export.save(program, content)
    path.write_bytes(content.getbuffer())


def load_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    """Open a `torch.export` archive on the CPU. Raises UnsafeFile for what could execute code."""
    return pt2.load(path).module()


Formats = Mapping[str, ExportFormat]
FORMATS: Formats = {
    "onnx": ExportFormat(".onnx", write_onnx, load_onnx),
    "pt2": ExportFormat(".pt2", write_pt2, load_pt2),
}


def write_format(name: str, module: nn.Module, example: Tensor, path: Path, formats: Formats | None = None) -> None:
    """Write `module` (eval mode, CPU) in a format, by default of FORMATS; `example` (N, C, H, W) gives the shape of one image.

    Raises VerificationFailed with the format and the cause, MissingPackage.
    """
    assert not module.training, "a network is exported as it is evaluated"
    with _blamed_on(f"export to {name}", path.parent):
        (formats or FORMATS)[name].write(module, example, path)


def load_format(name: str, path: Path, formats: Formats | None = None) -> Callable[[Tensor], Tensor]:
    """Read `write_format` back as a function from images to logits. Both raise VerificationFailed with the cause."""
    with _blamed_on(f"loading {name} file {str(path)!r}"):
        loaded = (formats or FORMATS)[name].load(path)

    def run(images: Tensor) -> Tensor:
        with _blamed_on(f"running {name} file {str(path)!r} on a batch of {len(images)}"):
            return loaded(images)

    return run


def write_files(folder: Path, module: nn.Module, architecture: Mapping[str, object], example: Tensor) -> list[Path]:
    """Write architecture.json, model.safetensors and the model in every format into `folder`.

    Where the architecture names its data, predict.py and labels.txt too, and what they need in the metadata of the ONNX file.

    All are written aside and then renamed, so what has its final name is whole; if one fails, none is replaced.
    Raises VerificationFailed naming the format.
    """
    with written_aside(folder) as aside:
        (aside / ARCHITECTURE).write_text(json.dumps(architecture, indent=2) + "\n", encoding="utf-8")
        save_weights(module, aside / WEIGHTS)
        for format_name, file_format in FORMATS.items():
            write_format(format_name, module, example, aside / f"model{file_format.suffix}")
        if data := architecture.get("data"):
            assert isinstance(data, Mapping)
            write_deployment(aside, data, example.shape[-1])
        names = sorted(path.name for path in aside.iterdir())
    return [folder / name for name in names]


# -- parts


@contextmanager
def _blamed_on(step: str, folder: Path | None = None) -> Iterator[None]:
    """Turn errors of exporters and runtimes, which come from many packages, into ours.

    Those of the machine are told apart; of a full disk some say so in words of their own, so that `folder` is tried.
    """
    try:
        yield
    except (VerificationFailed, MissingPackage, MachineFailed):
        raise
    except NasError as error:
        raise VerificationFailed(f"{step} failed: {error}") from error
    except Exception as error:
        if not isinstance(error, FileNotFoundError) and (failure := machine_failure(error)):
            raise failure from error
        if folder is not None:
            probe(folder)
        raise VerificationFailed(f"{step} failed: {_cause(error)}") from error


def traced(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Trace `module` (eval mode) for any number of images of the shape of `example` (N, C, H, W). Raises what torch raises."""
    # two images, because tracing with one makes the batch size a constant; zeros, because no image ends in the file
    images = torch.zeros(TRACED_IMAGES, *example.shape[1:], dtype=example.dtype)
    try:
        with Portable():
            return torch.export.export(module, (images,), dynamic_shapes=DYNAMIC_BATCH)
    except (RuntimeError, ValueError) as error:
        if FIXED_SIZE not in str(error):
            raise
        # the plain tracer makes a number of len(x), and with it of the batch size; the one that reads bytecode does not
        try:
            return torch.export.export(module, (images,), dynamic_shapes=DYNAMIC_BATCH, strict=True)
        except (RuntimeError, ValueError) as other:
            raise error from other


def _as_pooling(node: Any) -> None:  # noqa: ANN401 - a node of the exporter's own
    """Write a mean of all pixels as the pooling that it is: runtimes have blocked and integer kernels for that alone."""
    if node.op_type != "ReduceMean" or len(node.inputs) != 2 or node.attributes.get_int("keepdims", 1) != 1:
        return
    images, axes = node.inputs
    if axes.const_value is None or images.shape is None or len(images.shape) != 4:
        return
    if sorted(int(axis) % 4 for axis in axes.const_value.numpy()) == [2, 3]:
        node.op_type = "GlobalAveragePool"
        node.resize_inputs(1)
        node.attributes.clear()


def _cause(error: BaseException) -> str:
    """What an error began with, in a line: exporters wrap it in advice on their own use."""
    for _ in range(MOST_WRAPPERS):
        if error.__cause__ is None:
            break
        error = error.__cause__
    if missing := re.match(r"No ONNX function found for .*op='aten\.(\w+)'", str(error)):
        return f"ONNX has no operation for {missing[1]}"
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}" if lines else type(error).__name__
