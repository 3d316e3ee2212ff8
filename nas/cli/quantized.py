"""The quantized network of a run, built again from its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.nn as nn

from compress.agreement import INTEGER_TOLERANCE
from compress.prune.attention import prepare
from compress.quantize.graph import Network, network_of
from compress.quantize.saved import QUANTIZATION, read_about, reconverted
from compress.stored import WEIGHTS, load_weights
from compress.verify import VerifyInputs
from nas.budget import Metric
from nas.cli.sources import Shape, build, shape_of
from nas.cost.recount import recount


@dataclass(frozen=True)
class QuantizedNetwork:
    """What quantization.json describes: `network` is the one in floating point, with random weights."""

    folder: Path
    about: dict[str, Any]
    network: Network
    shape: Shape

    def original(self) -> nn.Module:
        """What was quantized, with random weights."""
        return build(self.about["source"])

    def rebuilt(self) -> nn.Module:
        """The network of integers, whose weights are to be loaded. Raises CorruptRun."""
        return reconverted(self.network, self.about)

    def module(self) -> nn.Module:
        """The network of integers as it was delivered, in evaluation mode. Raises CorruptRun."""
        module = self.rebuilt()
        load_weights(module, self.folder / WEIGHTS)
        return module.eval()


def is_quantized(folder: Path) -> bool:
    """Whether a folder such as best/ of a run holds a quantized network."""
    return (folder / QUANTIZATION).is_file()


def read_quantized(folder: Path) -> QuantizedNetwork:
    """Read what is in a folder. Raises CorruptRun, InvalidSetting."""
    about = read_about(folder)
    shape = shape_of(about)
    return QuantizedNetwork(folder, about, network_of(prepare(build(about["source"])).eval(), shape), shape)


def in_integers(inputs: VerifyInputs, network: Network, stored: Metric, tolerance: float = INTEGER_TOLERANCE) -> VerifyInputs:
    """What is verified of a quantized network; `stored` is the size that was promised.

    The multiply-adds of integer layers are those of the same layers in floating point.
    """
    return replace(inputs, recount=lambda _, image: recount(network.module, image), tolerance=tolerance, stored=stored)
