"""A quantized network on disk: how to build its source, its scheme, and its weights. No pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx

from compress.quantize.convert import converted
from compress.quantize.graph import Network
from compress.quantize.ptq import Quantized
from compress.quantize.quantizer import IntQuantizer
from compress.quantize.scheme import Scheme
from compress.quantize.simulate import point_quantizer_of, simulated
from compress.stored import WEIGHTS, load_weights, save_weights, written_aside
from nas import files
from nas.errors import CorruptRun, InvalidSetting
from nas.records import read_record

QUANTIZATION = "quantization.json"


def about_of(found: Quantized, source: Mapping[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    """What quantization.json says of a network: how to build its `source` for images of `shape`, and how it was rounded."""
    return {
        "source": dict(source),
        "shape": list(shape),
        "scheme": found.scheme.to_json(),
        "losses": {},
        "calibration": found.calibration,
        "equalized": found.equalized,
        "corrected": found.corrected,
        "divergence": found.error,
    }


def save_simulated(folder: Path, module: fx.GraphModule, about: Mapping[str, Any]) -> None:
    """Write a simulated module with its weights in fp32, to go on with, and `about` as quantization.json."""
    folder.parent.mkdir(exist_ok=True)
    with written_aside(folder) as aside:
        (aside / QUANTIZATION).write_bytes(files.to_json(dict(about)))
        save_weights(module, aside / WEIGHTS)


def load_simulated(folder: Path, network: Network) -> fx.GraphModule:
    """Read `save_simulated`, for the network that was quantized, whatever its weights. Raises CorruptRun."""
    module = simulated(network, scheme_of(read_about(folder)))
    load_weights(module, folder / WEIGHTS)
    return module.eval()


def points_of(module: fx.GraphModule, network: Network) -> dict[str, list[float]]:
    """Scale and zero point of each point that a simulated module rounds: they are no weights of the file."""
    found = {}
    for point in network.points:
        quantizer = point_quantizer_of(module, point)
        if quantizer is not None:
            zero = quantizer.zero_point.item() if isinstance(quantizer, IntQuantizer) else 0.0
            found[point] = [quantizer.scale.item(), zero]
    return found


def reconverted(network: Network, about: Mapping[str, Any]) -> fx.GraphModule:
    """A network of integers as quantization.json describes it, whose weights are to be loaded. Raises CorruptRun."""
    module = simulated(network, scheme_of(about))
    for point, (scale, zero) in about["points"].items():
        quantizer = point_quantizer_of(module, point)
        if quantizer is None:
            raise CorruptRun(f"{QUANTIZATION} rounds {point!r}, which the network does not have; restore it, or quantize again")
        with torch.no_grad():
            quantizer.scale.fill_(scale)
            if isinstance(quantizer, IntQuantizer):
                quantizer.zero_point.fill_(zero)
    return converted(module, network)


def scheme_of(about: Mapping[str, Any]) -> Scheme:
    """The scheme in quantization.json. Raises CorruptRun."""
    try:
        stored = about["scheme"]
        return Scheme(stored["weights"], stored["inputs"], stored["others"])
    except (KeyError, TypeError, InvalidSetting, CorruptRun) as error:
        raise CorruptRun(f"{QUANTIZATION} has no scheme that can be read ({error}); restore it, or quantize again") from error


def read_about(folder: Path) -> dict[str, Any]:
    """The content of quantization.json. Raises CorruptRun."""
    path = folder / QUANTIZATION
    try:
        return read_record(path)
    except FileNotFoundError as error:
        raise CorruptRun(f"{str(path)!r} cannot be read ({error.strerror}); restore it, or quantize again") from error
