"""Write a network as safetensors weights and in the formats that deployment runtimes read, and read them back.

Adding a format is adding two functions and one line in FORMATS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nas import weights
from nas.errors import CorruptRun, MissingPackage, NasError, VerificationFailed
from nas.files import sync_folder
from nas.runtimes import pt2
from nas.runtimes.ort import runner
from nas.runtimes.runtime import Setting
from nas.torch_seeding import generator

ARCHITECTURE, WEIGHTS = "architecture.json", "model.safetensors"
INPUT, OUTPUT = "images", "logits"
DYNAMIC_BATCH = ({0: torch.export.Dim("batch")},)
_COLOURS, MOST_WRAPPERS = re.compile(r"\x1b\[[\d;]*m"), 10
ONNX_LIMIT = 2**31 - 1  # bytes of one protocol buffer
TIE = 1e-3  # images whose two best logits are closer than this, relative to the largest logit, have no stable class
NUDGE = 1e-6  # of an image: about what runtimes round differently
MOST_SLACK = 0.5  # a network that needs more answers with noise, of which nothing can be told
_ASIDE = ".writing-"


@dataclass(frozen=True)
class ExportFormat:
    """One file format: `write(module, example, path)` and `load(path)`, which gives images (N, C, H, W) -> logits."""

    suffix: str
    write: Callable[[nn.Module, Tensor, Path], None]
    load: Callable[[Path], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Agreement:
    """How a reloaded network compares to the one in memory on the same images.

    `argmax_agreement` is the fraction of all images with the same class, `decided_agreement` the fraction among those
    that are not ties; `max_difference` is of the logits, `scale` the largest logit in memory. Logits may differ by `slack`
    of that; where the two best ones are nearer than that or TIE, the class may change: runtimes order sums differently.
    """

    argmax_agreement: float
    max_difference: float
    images: int
    decided_agreement: float
    ties: int
    scale: float
    slack: float = TIE

    @property
    def limit(self) -> float:
        """What logits may differ by."""
        return self.slack * self.scale

    @property
    def ok(self) -> bool:
        """Whether the reloaded network is the same one, NaN being nothing."""
        return self.decided_agreement == 1.0 and self.max_difference <= self.limit


def agreement(
    module: nn.Module, loaded: Callable[[Tensor], Tensor], images: Tensor, batch: int = 64, slack: float = TIE
) -> Agreement:
    """Run `module` and `loaded` on normalized images (N, C, H, W), N > 0, and compare their logits.

    Raises VerificationFailed if `loaded` fails or gives logits of another shape.
    """
    with torch.no_grad():
        pairs = [(module(x), loaded(x)) for x in images.split(batch)]
    ours, theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
    if ours.shape != theirs.shape:
        raise VerificationFailed(f"the reloaded network gives logits {tuple(theirs.shape)}, expected {tuple(ours.shape)}")
    scale = ours.abs().max().item()
    same = ours.argmax(1) == theirs.argmax(1)
    best = ours.topk(min(2, ours.shape[1]), dim=1).values
    decided = (best[:, 0] - best[:, -1] >= max(TIE, slack) * scale) | (ours.shape[1] == 1)
    return Agreement(
        argmax_agreement=same.float().mean().item(),
        max_difference=(ours - theirs).abs().max().item(),
        images=len(images),
        decided_agreement=same[decided].float().mean().item() if decided.any() else 1.0,
        ties=int((~decided).sum()),
        scale=scale,
        slack=slack,
    )


def slack_of(module: nn.Module, images: Tensor, tolerance: float, batch: int = 64) -> float:
    """What logits of two runtimes that are both right may differ by, as a share of the largest: at least `tolerance`.

    More, but never more than MOST_SLACK, where a change of the images by NUDGE moves the logits of `module` itself by more
    than half of that: integers jump where a value falls to the other side of an edge, and untrained weights carry that to
    the end.
    """
    drawn = generator(0, "nudge")
    moved = largest = 0.0
    with torch.no_grad():
        for part in images.split(batch):
            before = module(part)
            after = module(part * (1 + NUDGE * torch.randn(part.shape, generator=drawn)))
            moved = max(moved, (after - before).abs().max().item())
            largest = max(largest, before.abs().max().item())
    return max(tolerance, min(MOST_SLACK, 2 * moved / largest)) if largest else tolerance


# -- weights


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of `module` as safetensors."""
    weights.save(module.state_dict(), path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Read `save_weights` into a module of the same shapes. Raises CorruptRun if any name or shape differs."""
    state = OrderedDict(weights.load(path))
    # some modules read older layouts by their version, and take none for the oldest
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CorruptRun(f"weights file {str(path)!r} does not fit the network: {_cause(error)}") from error


# -- formats


def write_onnx(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write one self-contained ONNX file with the input `images` and the output `logits`, batch size dynamic."""
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    if size >= ONNX_LIMIT:
        raise VerificationFailed(f"the weights take {size} bytes; one ONNX file holds less than {ONNX_LIMIT}; use pt2")
    # traced here, because the exporter's own tracing falls back to a constant batch size where ours fails
    program = torch.onnx.export(
        _trace(module, example),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=DYNAMIC_BATCH,
        verbose=False,
    )
    assert program is not None  # it is None for the old exporter alone
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces: they carry the paths of this machine
    program.save(path, external_data=False)


def load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Open an ONNX file with onnxruntime on the CPU, with as many threads as torch has."""
    run = runner(path.read_bytes(), Setting(threads=torch.get_num_threads()))
    return lambda images: torch.from_numpy(run(images.numpy()))


def write_pt2(module: nn.Module, example: Tensor, path: Path) -> None:
    """Write a `torch.export` archive, batch size dynamic."""
    program = _trace(module, example)
    program.example_inputs = None  # the file needs none, and they would be stored pickled
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, path)


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
    with _blamed_on(f"export to {name}"):
        (formats or FORMATS)[name].write(module, example, path)


def load_format(name: str, path: Path, formats: Formats | None = None) -> Callable[[Tensor], Tensor]:
    """Read `write_format` back as a function from images to logits. Both raise VerificationFailed with the cause."""
    with _blamed_on(f"loading {name} file {str(path)!r}"):
        loaded = (formats or FORMATS)[name].load(path)

    def run(images: Tensor) -> Tensor:
        with _blamed_on(f"running {name} file {str(path)!r}"):
            return loaded(images)

    return run


def write_files(folder: Path, module: nn.Module, architecture: Mapping[str, object], example: Tensor) -> list[Path]:
    """Write architecture.json, model.safetensors and the model in every format into `folder`.

    All are written aside and then renamed, so what has its final name is whole; if one fails, none is replaced.
    Raises VerificationFailed naming the format.
    """
    with written_aside(folder) as aside:
        (aside / ARCHITECTURE).write_text(json.dumps(architecture, indent=2) + "\n", encoding="utf-8")
        save_weights(module, aside / WEIGHTS)
        for format_name, file_format in FORMATS.items():
            write_format(format_name, module, example, aside / f"model{file_format.suffix}")
        names = sorted(path.name for path in aside.iterdir())
    return [folder / name for name in names]


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder whose files go to `folder` when the block ends, and nowhere if it raises."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{_ASIDE}*"):  # of a process that was killed here
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_ASIDE) as name:
        yield Path(name)
        for path in sorted(Path(name).iterdir()):
            _publish(path, folder / path.name)
    sync_folder(folder)


# -- parts


@contextmanager
def _blamed_on(step: str) -> Iterator[None]:
    """Turn errors of exporters and runtimes, which come from many packages, into ours."""
    try:
        yield
    except (VerificationFailed, MissingPackage):
        raise
    except NasError as error:
        raise VerificationFailed(f"{step} failed: {error}") from error
    except Exception as error:
        raise VerificationFailed(f"{step} failed: {_cause(error)}") from error


def _publish(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)


def _trace(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    # two images, because tracing with one makes the batch size a constant; zeros, because no image ends in the file
    images = torch.zeros(2, *example.shape[1:], dtype=example.dtype)
    return torch.export.export(module, (images,), dynamic_shapes=DYNAMIC_BATCH)


def _cause(error: BaseException) -> str:
    """What an error began with, in a line: exporters wrap it in advice on their own use."""
    for _ in range(MOST_WRAPPERS):
        if error.__cause__ is None:
            break
        error = error.__cause__
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:300]}" if lines else type(error).__name__
