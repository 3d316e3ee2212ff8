"""Networks that a user names: a run, an architecture of a space, a model of torchvision or timm, an ONNX file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from compress.prune.adapting import Logits, materialized, plain
from compress.prune.cifar_resnet import CIFAR_RESNETS, INPUT_SHAPE
from compress.prune.history import History, replay
from compress.prune.pipeline import example_of
from compress.prune.saved import SOURCE, load_pruned, read_history, read_source
from compress.prune.sparse_training import activated
from nas import files
from nas.architecture import Architecture, SearchSpace
from nas.cli.keys import key_of, record_of
from nas.cli.modules import MODULES
from nas.cli.space import space_of
from nas.cli.trust import PREFIX, require
from nas.cost.trace import trace
from nas.errors import InvalidSetting, NasError
from nas.kinds import Described
from nas.plan import Plan
from nas.records import checked
from nas.report.passes import COMPRESS, pass_runs
from nas.rundir import CONFIG, RunDir

Shape = tuple[int, int, int]
DEFAULT_SHAPE = (3, 224, 224)
BEST_FOLDER, NETWORKS = "best", "networks"
BEST = f"{BEST_FOLDER}/architecture.json"
FORMS = (
    "torchvision:NAME, timm:NAME, cifar-resnet20 to cifar-resnet110, python:MODULE:FUNCTION, a run directory, "
    "RUN:KEY for one of its trials, an architecture.json, or (to be counted and timed) a model.onnx"
)


@dataclass(frozen=True)
class Network:
    """A network by the name that the user gave it; `space` and `architecture` where it is one of ours."""

    name: str
    plan: Plan
    space: SearchSpace | None = None
    architecture: Architecture | None = None


def read_shape(text: str) -> Shape:
    """Read channels x height x width. Raises InvalidSetting."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise InvalidSetting(f"--shape {text!r} was not understood; write channels x height x width, like 3x224x224")
    return int(match[1]), int(match[2]), int(match[3])


def full_name(text: str) -> str:
    """`torchvision:resnet50` for `resnet50`, where no file or folder has that name; all else as it is."""
    if not re.fullmatch(r"\w+", text) or Path(text).exists():
        return text
    from torchvision import models  # only where one may be named

    return f"torchvision:{text}" if text in models.list_models(module=models) else text


def tidied(text: str) -> str:
    """A run directory, or RUN:KEY, without a slash at the end of the directory: one network, one name; all else as it is."""
    if Path(text).is_dir():
        return str(Path(text))
    run, colon, key = text.rpartition(":")
    return f"{Path(run)}:{key}" if colon and Path(run).is_dir() else text


def run_of(text: str) -> Path | None:
    """The directory of the run that RUN or RUN:KEY names; None for other networks."""
    run, colon, _ = text.rpartition(":")
    folders = (Path(text), Path(run)) if colon else (Path(text),)
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def read_network(text: str, shape: Shape | None = None) -> Network:
    """The plan of a network for images of `shape`; without one the network's own, else 3x224x224.

    Raises InvalidSetting if the network does not exist or takes other images, MissingPackage.
    """
    text = full_name(text)
    if text in CIFAR_RESNETS:
        return _plan_of_module(text, shape or INPUT_SHAPE)
    for form, reader in PLANS.items():
        if text.startswith(form) or text.endswith(form):
            return reader(text, shape)
    if folder := pruned_folder(text):
        return _plan_of_module(text, shape or shape_of(read_source(folder)))
    return _plan_of_architecture(text, shape)


def _named(text: str, classes: int | None) -> nn.Module:
    """A network by its name; a run or an architecture is read for its architecture alone, which ends."""
    if text in CIFAR_RESNETS or text.startswith(tuple(MODULES)) or text.endswith(".onnx"):
        return module_of(text, classes)
    space, arch = architecture_of(text)
    return space.network(arch)


def module_of(text: str, classes: int | None = None) -> nn.Module:
    """The module of a network, with random weights and, where that can be chosen, as many `classes`.

    Raises InvalidSetting, MissingPackage.
    """
    if text in CIFAR_RESNETS:
        return CIFAR_RESNETS[text]() if classes is None else CIFAR_RESNETS[text](classes)
    for form, reader in MODULES.items():
        if text.startswith(form):
            return reader(text.removeprefix(form), classes)
    if folder := pruned_folder(text):
        return reload(folder)
    if text.endswith(".onnx"):
        raise InvalidSetting(f"network {text!r} is a graph, and a module is needed; give the run, or the network, it came from")
    space, arch = architecture_of(text)
    return space.network(arch)


def build(source: Mapping[str, Any]) -> nn.Module:
    """Build a network, with random weights, from what source.json says. Raises InvalidSetting, MissingPackage."""
    if "architecture" in source:
        space, arch = _described(source["architecture"], str(source["network"]))
        return space.network(arch)
    if "pruned" in source:
        earlier = source["pruned"]
        return replay(build(earlier), History.from_json(source["history"]), example_of(shape_of(earlier)))
    return finished(made(source), source)


def made(source: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """The module of a source as its constructor makes it, under the names that weights of it have."""
    name = str(source["network"])
    if own := name.startswith(PREFIX):
        require(name.removeprefix(PREFIX))
    with torch.random.fork_rng():  # constructors draw from the global generator: what they draw is then always the same
        torch.manual_seed(seed)
        module = _named(name, source["classes"])
        return materialized(module, example_of(shape_of(source))) if own else module


def finished(module: nn.Module, source: Mapping[str, Any]) -> nn.Module:
    """What a source says to be done with a module that was made: weights made plain, one output, another activation."""
    if str(source["network"]).startswith(PREFIX):
        plain(module)
    if "output" in source:
        module = Logits(module, source["output"])
    name = source.get("activation")
    return activated(module, name, example_of(shape_of(source))) if name else module


def reload(folder: Path) -> nn.Module:
    """The pruned network of a folder, as `compress.prune.saved.load_pruned` gives it."""
    shape = shape_of(read_source(folder))
    return load_pruned(folder, build, lambda module, history: replay(module, history, example_of(shape)))


def rebuilt(folder: Path) -> nn.Module:
    """A network of the shapes of that of a folder, with other weights. Raises InvalidSetting, CorruptRun."""
    source = read_source(folder)
    return replay(build(source), read_history(folder), example_of(shape_of(source)))


def is_pruned(text: str) -> bool:
    """Whether `text` is the directory of a run that delivered a pruned network."""
    return (Path(text) / "best" / SOURCE).is_file()


def pruned_folder(text: str) -> Path | None:
    """Where a pruned network is stored: that which a run delivered, or RUN:KEY, any that it made; None for other networks.

    RUN is of `nas prune`, or of `nas compress`. Raises InvalidSetting for a key that it does not have.
    """
    if is_pruned(text):
        return Path(text) / BEST_FOLDER
    run, colon, key = text.rpartition(":")
    stored = _pruned_networks(Path(run)) if colon else {}
    return stored[key_of(run, sorted(stored), key)] if stored else None


def _pruned_networks(path: Path) -> dict[str, Path]:
    """The folders of what a run has pruned, by key; of a chain as the last pass that has them left them."""
    if not (path / CONFIG).is_file():
        return {}
    runs = pass_runs(path) if RunDir.read(path).config.get("command") == COMPRESS else [path]
    return {file.parent.name: file.parent for run in runs for file in (run / NETWORKS).glob(f"*/{SOURCE}")}


def shape_of(source: Mapping[str, Any]) -> Shape:
    """The shape of one image, as source.json has it."""
    channels, height, width = source["shape"]
    return channels, height, width


def architecture_of(text: str) -> tuple[SearchSpace, Architecture]:
    """The architecture of a run directory, of RUN:KEY, or of an architecture.json. Raises InvalidSetting, CorruptRun."""
    path, (run, colon, key) = Path(text), text.rpartition(":")
    if path.is_dir():
        content: Mapping[str, Any] = RunDir.read(path).record(BEST)
        return _described(content, str(path / BEST))
    if colon and Path(run).is_dir():
        return _trial(RunDir.read(Path(run)), key)
    if path.suffix == ".json":
        stored = _read_json(path)
        return _described(checked(stored, Described, repr(text)) if isinstance(stored, dict) else stored, text)
    raise InvalidSetting(f"network {text!r} was not understood{_hint(text)}; expected {FORMS}")


# -- plans


def _plan_of_module(text: str, shape: Shape | None) -> Network:
    shape = shape or DEFAULT_SHAPE
    try:
        with torch.device("meta"):  # shapes are enough, and weights take time
            return Network(text, _traced(text, shape))
    except (RuntimeError, NasError):  # some constructors compute with what they make
        return Network(text, _traced(text, shape))


def _traced(text: str, shape: Shape) -> Plan:
    example = torch.zeros(1, *shape)
    return trace(materialized(module_of(text), example), example)


def _plan_of_onnx(text: str, shape: Shape | None) -> Network:
    from nas.cost.onnx_plan import onnx_plan  # onnx is slow to import, and only where a file is named

    return Network(text, onnx_plan(Path(text), shape))


def _plan_of_architecture(text: str, shape: Shape | None) -> Network:
    space, arch = architecture_of(text)
    plan = space.plan(arch)
    own = (plan.input_channels, *plan.input_size)
    if shape not in (None, own):
        given, needed = ("x".join(map(str, s)) for s in (shape or (), own))
        raise InvalidSetting(f"--shape {given}: {text} is a network for images of {needed}; drop --shape")
    return Network(text, plan, space, arch)


PLANS: dict[str, Callable[[str, Shape | None], Network]] = {
    "torchvision:": _plan_of_module,
    "timm:": _plan_of_module,
    PREFIX: _plan_of_module,
    ".onnx": _plan_of_onnx,
}


# -- architectures


def _hint(text: str) -> str:
    if text.startswith("cifar-resnet"):
        return f" (there are {', '.join(CIFAR_RESNETS)})"
    return " (give the model.onnx beside it)" if text.endswith(".pt2") else ""


def _read_json(path: Path) -> object:
    try:
        return files.from_json(files.read_regular(path))
    except OSError as error:
        raise InvalidSetting(f"cannot read {str(path)!r}: {error.strerror}; give an architecture.json of a run") from error
    except ValueError as error:
        raise InvalidSetting(f"{str(path)!r} is not JSON ({error}); give an architecture.json of a run") from error


def _described(content: object, name: str) -> tuple[SearchSpace, Architecture]:
    """Read what best/architecture.json holds: an architecture and the definition of its space."""
    definition = content.get("definition") if isinstance(content, dict) else None
    if not (isinstance(content, dict) and isinstance(definition, dict) and {"name", "version", "settings"} <= set(definition)):
        raise InvalidSetting(
            f"{name!r} describes no architecture; it needs `choices`, `space` and `definition`, as best/architecture.json has"
        )
    try:
        space = space_of({"space": definition})
    except TypeError as error:
        raise InvalidSetting(f"{name!r} has settings that its space does not know ({error}); restore the file") from error
    return space, space.from_json(content)


def _trial(run: RunDir, key: str) -> tuple[SearchSpace, Architecture]:
    space = space_of(run.config)
    return space, space.from_json(record_of(run, key)["architecture"])
