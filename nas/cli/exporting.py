"""The work of `nas export`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compress.agreement import INTEGER_TOLERANCE, TOLERANCE, Agreement, agreement, slack_of
from compress.export import load_format, write_format
from compress.more_formats import EXPORTS
from compress.stored import written_aside
from nas.cli.checking import comparison_images
from nas.cli.existing import data_for
from nas.cli.normalization import of_run
from nas.cli.progress import log
from nas.cli.pruning.original import Original, read_original
from nas.cli.pruning.settings import PruneSettings
from nas.cli.quantized import is_quantized, read_quantized
from nas.cli.running import data_of
from nas.cli.sources import run_of
from nas.data.dataset import Dataset
from nas.data.load import DataConfig, load
from nas.errors import InvalidSetting, VerificationFailed, not_known
from nas.report.passes import config_of, pass_runs
from nas.rundir import RunDir

IMAGES = 64


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    network: str
    format: str
    weights: str | None
    data: str | None
    shape: str | None
    out: Path | None


def run_export(wanted: Wanted, as_json: bool) -> None:
    """The whole of `nas export`. Raises InvalidSetting, MissingPackage, VerificationFailed."""
    if wanted.format not in EXPORTS:
        raise InvalidSetting(f"--format {not_known(wanted.format, EXPORTS)}")
    suffix = EXPORTS[wanted.format].suffix
    if wanted.out is not None and wanted.out.suffix != suffix:
        right = str(wanted.out.with_suffix(suffix) if wanted.out.name else wanted.out / f"model{suffix}")
        raise InvalidSetting(f"--out {str(wanted.out)!r}: files of {wanted.format} end in {suffix}; give {right!r}")
    data = _data(wanted)
    best = Path(wanted.network) / "best"
    original = _quantized(wanted, data, best) if is_quantized(best) else _in_floats(wanted, data)
    tolerance = INTEGER_TOLERANCE if is_quantized(best) else TOLERANCE
    if not original.trained:
        log("warning: no --weights were given, so a network with random weights is exported")
    path = wanted.out or Path(_name(wanted.network) + suffix)
    found = _written(original, wanted.format, path, _images(original, data), tolerance)
    kind = "real images" if data is not None else "images of noise"
    log(
        f"{path}: {found.argmax_agreement:.2%} the same class on {found.images} {kind}, largest difference of the logits "
        f"{found.max_difference:.3g} (at most {found.limit:.3g}; largest logit {found.scale:.3g})"
    )
    if as_json:
        print(json.dumps({"command": "export", "file": str(path), "format": wanted.format, "compared_on": kind, **vars(found)}))


def _in_floats(wanted: Wanted, data: Dataset | None) -> Original:
    return read_original(PruneSettings(network=wanted.network, weights=wanted.weights, shape=wanted.shape), data)


def _quantized(wanted: Wanted, data: Dataset | None, folder: Path) -> Original:
    """The network of integers that a run delivered. Raises InvalidSetting for options or images that do not fit it."""
    for option, value in (("--weights", wanted.weights), ("--shape", wanted.shape)):
        if value:
            raise InvalidSetting(f"{option} {value!r}: {wanted.network!r} is quantized, with its own; drop {option}")
    found, stored = read_quantized(folder), config_of(RunDir.read(folder.parent))["data"]
    given = None if data is None else (data.channels, data.resolution, data.resolution)
    if given not in (None, found.shape):
        has, needs = ("x".join(map(str, shape)) for shape in (given or (), found.shape))
        raise InvalidSetting(f"--data {wanted.data!r} has images of {has}, and {wanted.network!r} needs {needs}; give its own")
    source = found.about["source"]
    return Original(str(folder.parent), found.module(), found.shape, source, of_run(stored), trained=True)


def _written(original: Original, name: str, path: Path, images: Tensor, tolerance: float) -> Agreement:
    """Write aside, reload, compare, and only then put the files in their place."""
    module = original.module.to(memory_format=torch.contiguous_format)
    with written_aside(path.absolute().parent) as aside:
        write_format(name, module, images[:1], aside / path.name, EXPORTS)
        loaded = load_format(name, aside / path.name, EXPORTS)
        found = agreement(module, loaded, images, slack=slack_of(module, images, tolerance))
        if not found.ok:
            raise VerificationFailed(
                f"{name} gives other answers than the network: {found.decided_agreement:.2%} the same class, logits up to "
                f"{found.max_difference:.3g} apart; nothing was written"
            )
    return found


def _data(wanted: Wanted) -> Dataset | None:
    """The data that were named, or those of the run."""
    if wanted.data is not None:
        return load(DataConfig(wanted.data, least=1))
    folder = run_of(wanted.network)
    if folder is None:
        return None
    first = next(iter(pass_runs(folder)), folder)  # of a chain, which names no data itself
    stored = RunDir.read(first).config
    if not stored.get("data", {}).get("name"):
        return None
    return data_of(stored)


def _images(original: Original, data: Dataset | None) -> Tensor:
    data = data_for(original, data, torch.device("cpu"))
    return comparison_images(data, IMAGES, original.shape)


def _name(network: str) -> str:
    return re.sub(r"\W+", "-", network).strip("-") or "model"
