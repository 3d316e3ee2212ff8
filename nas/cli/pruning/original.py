"""The network that the user already has: built, loaded with its weights, and described so that it can be built again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from compress.prune.adapting import Logits, plain
from compress.prune.attention import prepare
from compress.prune.cifar_resnet import CIFAR_RESNETS, INPUT_SHAPE
from compress.prune.saved import read_history, read_source
from compress.prune.sources import load_into
from compress.quantize.saved import QUANTIZATION
from compress.stored import WEIGHTS, load_weights
from nas.architecture import Architecture, short_hash
from nas.cli.normalization import Normalization, expected, given, of_run
from nas.cli.progress import log
from nas.cli.pruning.trying import check_logits, output_of
from nas.cli.shared_settings import ExistingSettings
from nas.cli.sources import (
    BEST,
    BEST_FOLDER,
    DEFAULT_SHAPE,
    Shape,
    architecture_of,
    full_name,
    made,
    pruned_folder,
    read_shape,
    reload,
    run_of,
    shape_of,
    tidied,
)
from nas.cli.trust import PREFIX, called_with
from nas.cost.trace import trace
from nas.data.dataset import Dataset
from nas.errors import InvalidSetting
from nas.plan import Plan
from nas.report.passes import config_of
from nas.rundir import RunDir
from nas.torch_seeding import generator
from nas.training.calibration import recalibrate

# images that norms of random weights are fitted to
NOISE = 8


@dataclass(frozen=True)
class Original:
    """A network in evaluation mode on the CPU, prepared for cutting, and `source`, plain JSON that builds it again.

    `shape` is that of one image; `normalization` is what it expects of images, None where that is not known.
    """

    name: str
    module: nn.Module
    shape: Shape
    source: Mapping[str, Any]
    normalization: Normalization | None = None
    trained: bool = False

    @property
    def identity(self) -> str:
        """What keys of networks that are made of it begin with: its name, or of a run what is in it, wherever it lies."""
        return _identity(self.source)

    @cached_property
    def plan(self) -> Plan:
        """Its layers. Raises Untraceable naming what cannot be traced."""
        return trace(self.module, torch.zeros(1, *self.shape))


def read_original(settings: ExistingSettings, data: Dataset | None) -> Original:
    """Build the network that a user names, with the weights of a file; images are those of `data`, or of --shape.

    Random weights without data get norms that fit noise: signals would fade or blow up, and the logits would tell nothing.
    Raises InvalidSetting if there is no such network, or if weights or data do not fit it.
    """
    text, weights = tidied(full_name(settings.network)), settings.weights
    if Path(text).is_dir() or pruned_folder(text):
        if settings.mean or settings.std:
            raise InvalidSetting(f"--mean and --std: {text!r} has its own normalization, that of its run; drop them")
        return _of_run(text, weights, data)
    if run_of(text) and not weights:
        raise InvalidSetting(
            f"{text!r}: only nas prune keeps weights of each of its networks; give the run for the one that it delivered, "
            "write the files of another one with nas extract, or name --weights"
        )
    classes = data.classes if data is not None and not text.startswith(PREFIX) else None
    shape = _image_shape(settings, text, data)
    source = {"network": text, "classes": classes, "shape": list(shape)}
    with called_with(settings.network):
        module = made(source).eval()
        trained = bool(weights) or _brings_weights(module, source)
    normalization = given(settings, shape[0]) or expected(text, module)
    if weights:
        about = f" ({data.name} has {classes} classes)" if data is not None and classes else ""
        for line in load_into(module, Path(weights), about):
            log(line)
    module, source = _usable(module, source, data)
    original = Original(text, prepare(module).eval(), shape, source, normalization, trained)
    _check(original, data)
    if not trained and data is None:
        recalibrate(original.module, [torch.randn(NOISE, *shape, generator=generator(0, "norms"))])
    return original


# -- parts


def _identity(source: Mapping[str, Any]) -> str:
    if "architecture" in source:
        return Architecture(source["architecture"]["space"], source["architecture"]["choices"]).key
    if "pruned" in source:
        return short_hash([_identity(source["pruned"]), source["history"]])
    return str(source["network"])


def _of_run(text: str, weights: str | None, data: Dataset | None) -> Original:
    """The network that a run delivered, or RUN:KEY, another one that it cut, with its weights."""
    if weights:
        raise InvalidSetting(f"--weights {weights!r}: {text!r} has its own, in {WEIGHTS}; drop --weights")
    folder = pruned_folder(text)
    run = RunDir.read(run_of(text) or Path(text))
    best = run.path / BEST_FOLDER
    if folder in (None, best) and (best / QUANTIZATION).is_file():
        raise InvalidSetting(f"{text!r} holds a network that is quantized already; give the one that it was made of")
    if folder is not None:
        module = reload(folder)
        earlier = dict(read_source(folder))
        source: dict[str, Any] = {"pruned": earlier, "history": read_history(folder).to_json()}
        shape = shape_of(earlier)
    else:
        space, arch = architecture_of(text)
        module = space.network(arch)
        load_weights(module, best / WEIGHTS)
        plan = space.plan(arch)
        shape = (plan.input_channels, *plan.input_size)
        source = {"architecture": run.record(BEST)}
    # its name alone, for it is told of, and the source is passed on with the network
    source |= {"network": Path(text).name, "classes": None, "shape": list(shape)}
    stored = config_of(run)["data"]
    original = Original(text, prepare(module).eval(), shape, source, of_run(stored), trained=True)
    _check(original, data)
    return original


def _usable(module: nn.Module, source: dict[str, Any], data: Dataset | None) -> tuple[nn.Module, dict[str, Any]]:
    """A network of the user's own with plain weights and one output, and the source that makes it so again."""
    if not source["network"].startswith(PREFIX):
        return module, source
    name = source["network"]
    for line in plain(module):
        log(f"{name}: {line}")
    key, shapes = output_of(name, module, shape_of(source), data)
    if key is None:
        return module, source
    log(f"{name}: of its outputs ({shapes}) {key!r} is taken for the logits")
    return Logits(module, key), {**source, "output": key}


def _brings_weights(module: nn.Module, source: Mapping[str, Any]) -> bool:
    """Whether the user's own function gives trained weights: these do not depend on the seed."""
    if not source["network"].startswith(PREFIX):
        return False
    other = made(source, seed=1).state_dict()
    return all(torch.equal(t, other[name]) for name, t in module.state_dict().items())


def _check(original: Original, data: Dataset | None) -> None:
    """Raise InvalidSetting if the network cannot be run, or gives other classes than the data have."""
    check_logits(original.name, original.module, original.shape, data)


def _image_shape(settings: ExistingSettings, text: str, data: Dataset | None) -> Shape:
    """That of the data, or else --shape, the network's own with --resolution. Raises InvalidSetting for two answers."""
    if data is not None:
        if settings.shape:
            raise InvalidSetting(f"--shape {settings.shape}: images are those of --data {data.name}; drop one of the two")
        return data.channels, data.resolution, data.resolution
    if settings.shape:
        return read_shape(settings.shape)
    channels, *sides = INPUT_SHAPE if text in CIFAR_RESNETS else DEFAULT_SHAPE
    height, width = (settings.resolution or side for side in sides)
    return channels, height, width
