"""Post-training quantization: calibrate, equalize, correct biases, and keep of these what brings the output nearer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from compress.quantize.bias_correction import correct_biases
from compress.quantize.equalization import equalized
from compress.quantize.formats import FORMATS
from compress.quantize.graph import Network
from compress.quantize.ranges import CALIBRATIONS, histograms
from compress.quantize.scheme import Scheme
from compress.quantize.simulate import simulated
from nas.errors import InvalidSetting

AUTO = "auto"


@dataclass(frozen=True)
class PtqConfig:
    """`calibration` is one of CALIBRATIONS or auto; of the two others, True means: where they help."""

    calibration: str = AUTO
    equalize: bool = True
    correct_bias: bool = True

    def __post_init__(self) -> None:
        """Check the name. Raises InvalidSetting."""
        if self.calibration not in (AUTO, *CALIBRATIONS):
            raise InvalidSetting(
                f"--calibration {self.calibration!r} is not known; choose auto or one of {', '.join(CALIBRATIONS)}"
            )


@dataclass(frozen=True)
class Quantized:
    """A simulated module, the network that its weights are from, and how it was made: `error` is that of its output."""

    module: fx.GraphModule
    network: Network
    scheme: Scheme
    calibration: str
    equalized: bool
    corrected: bool
    error: float


@dataclass(frozen=True)
class Judge:
    """Images, in batches, and the logits of the network in fp32 on them."""

    batches: Sequence[Tensor]
    wanted: Sequence[Tensor]

    def error(self, module: nn.Module) -> float:
        """Mean Kullback-Leibler divergence of the class probabilities of `module` from those in fp32."""
        with torch.no_grad():
            parts = [
                F.kl_div(module(x).log_softmax(1), y.log_softmax(1), log_target=True, reduction="none").sum(1)
                for x, y in zip(self.batches, self.wanted, strict=True)
            ]
        return float(torch.cat(parts).mean())


def judge_of(network: Network, batches: Sequence[Tensor]) -> Judge:
    """What tells how far a quantized network is from `network`."""
    with torch.no_grad():
        return Judge(batches, [network.module(x) for x in batches])


def quantize(network: Network, scheme: Scheme, batches: Sequence[Tensor], config: PtqConfig) -> Quantized:
    """Quantize after training on images, `batches` of (N, C, H, W): at least one; of several, every other one judges."""
    assert batches, "ranges are calibrated on images"
    judge = judge_of(network, batches[1::2] or batches)
    best = _calibrated(network, scheme, batches, config, judge)
    if config.equalize:
        other = _calibrated(equalized(network), scheme, batches, config, judge)
        best = min(best, replace(other, equalized=True), key=lambda found: found.error)
    if config.correct_bias:
        module = copy.deepcopy(best.module)
        correct_biases(module, best.network, torch.cat(list(batches[::2])))
        corrected = replace(best, module=module, corrected=True, error=judge.error(module))
        best = min(best, corrected, key=lambda found: found.error)
    return best


def _calibrated(network: Network, scheme: Scheme, batches: Sequence[Tensor], config: PtqConfig, judge: Judge) -> Quantized:
    """Ranges by the calibration that was asked for, or by the one of the least output error."""
    seen = histograms(network, batches[::2])
    levels = {point: 1 << min(16, FORMATS[scheme.of_point(network, point)].bits) for point in network.points}
    found = []
    for name in CALIBRATIONS if config.calibration == AUTO else [config.calibration]:
        ranges = {point: CALIBRATIONS[name](seen[point], levels[point]) for point in network.points}
        module = simulated(network, scheme, ranges).eval()
        found.append(Quantized(module, network, scheme, name, False, False, judge.error(module)))
    return min(found, key=lambda one: one.error)
