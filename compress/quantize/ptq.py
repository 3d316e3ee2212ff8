"""Post-training quantization: calibrate, equalize, correct biases, and keep of these what brings the output nearer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from compress.agreement import check_same
from compress.quantize.bias_correction import correct_biases
from compress.quantize.equalization import equalized
from compress.quantize.formats import FORMATS
from compress.quantize.graph import Network
from compress.quantize.memory import images_at_once
from compress.quantize.passes import Passes
from compress.quantize.race import Runner, winner
from compress.quantize.ranges import CALIBRATIONS, histograms
from compress.quantize.scheme import Scheme
from compress.quantize.simulate import set_ranges, simulated
from nas.errors import InvalidSetting, not_known

AUTO = "auto"
COMPARED = 8  # images


@dataclass(frozen=True)
class PtqConfig:
    """`calibration` is one of CALIBRATIONS or auto; of the two others, True means: where they help."""

    calibration: str = AUTO
    equalize: bool = True
    correct_bias: bool = True

    def __post_init__(self) -> None:
        """Check the name. Raises InvalidSetting."""
        if self.calibration not in (AUTO, *CALIBRATIONS):
            raise InvalidSetting(f"--calibration {not_known(self.calibration, CALIBRATIONS, 'auto or ')}")


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
    """Images, in batches, and the network in fp32, whose logits are computed when they are first compared."""

    batches: Sequence[Tensor]
    network: nn.Module
    passes: Passes = field(default_factory=Passes)
    known: dict[int, Tensor] = field(default_factory=dict)

    def wanted(self, number: int) -> Tensor:
        """Log-probabilities in fp32 on a batch, (N, classes)."""
        if number not in self.known:
            with torch.no_grad():
                self.known[number] = self.network(self.batches[number]).log_softmax(1)
        return self.known[number]

    def losses(self, module: nn.Module, number: int) -> Tensor:
        """Kullback-Leibler divergence of the class probabilities of `module` from those in fp32, by image of a batch, (N,)."""
        with torch.no_grad():
            found = module(self.batches[number]).log_softmax(1)
        self.passes.made()
        return F.kl_div(found, self.wanted(number), log_target=True, reduction="none").sum(1)

    def error(self, module: nn.Module) -> float:
        """The mean of `losses` over all images."""
        return float(torch.cat([self.losses(module, number) for number in range(len(self.batches))]).mean())


def judge_of(network: Network, batches: Sequence[Tensor]) -> Judge:
    """A judge that compares quantized networks with `network` in its present state."""
    judge = Judge(batches, network.module)
    for number in range(len(batches)):
        judge.wanted(number)
    return judge


def quantize(
    network: Network, scheme: Scheme, batches: Sequence[Tensor], config: PtqConfig, passes: Passes | None = None
) -> Quantized:
    """Quantize after training on images, `batches` of (N, C, H, W): at least one; of several, every other one judges.

    Whatever is clearly worse than another choice, or no better, is judged on the first images alone, and what is chosen on as
    many as its error takes to be known. `passes` are told how far it is.
    """
    assert batches, "ranges are calibrated on images"
    judge = Judge(batches[1::2] or batches, network.module, passes or Passes())
    networks = [network]
    if config.equalize:
        equal = equalized(network)
        check_same(network.module, equal.module, batches[0][:COMPARED], "the network with its layers equalized")
        networks.append(equal)
    best, runner = _calibrated(networks, scheme, batches[::2], config, judge)
    if config.correct_bias:
        module = copy.deepcopy(best.module)
        correct_biases(module, best.network, _some(best.network, batches[::2]))
        runners = [runner, _runner(judge, module)]
        judge.passes.expect(2 * len(judge.batches) - len(runner.known))
        if winner(runners, len(judge.batches), judge.passes):
            best = replace(best, module=module, corrected=True, error=runners[1].told(len(judge.batches)))
    return best


def _calibrated(
    networks: Sequence[Network], scheme: Scheme, batches: Sequence[Tensor], config: PtqConfig, judge: Judge
) -> tuple[Quantized, Runner]:
    """The network with the ranges by the calibration that was asked for, or by the one of the least output error.

    Of two networks, which compute the same, the second one is equalized.
    """
    names = list(CALIBRATIONS) if config.calibration == AUTO else [config.calibration]
    choices, runners = [], []
    judge.passes.expect(len(networks) * (len(batches) + len(names) * len(judge.batches)))
    for network in networks:
        seen, module = histograms(network, batches, judge.passes), simulated(network, scheme).eval()
        levels = {point: 1 << min(16, FORMATS[scheme.of_point(network, point)].bits) for point in network.points}
        for name in names:
            ranges = {point: CALIBRATIONS[name](seen[point], levels[point]) for point in network.points}
            choices.append((network, module, name, ranges))
            runners.append(_runner(judge, module, partial(set_ranges, module, network, ranges)))
    best = winner(runners, len(judge.batches), judge.passes)
    error = runners[best].told(len(judge.batches))
    network, module, name, ranges = choices[best]
    set_ranges(module, network, ranges)
    return Quantized(module, network, scheme, name, network is not networks[0], False, error), runners[best]


def _runner(judge: Judge, module: nn.Module, prepare: Callable[[], None] = lambda: None) -> Runner:
    def loss(number: int) -> Tensor:
        prepare()
        return judge.losses(module, number)

    return Runner(loss)


def _some(network: Network, batches: Sequence[Tensor]) -> Tensor:
    """As many of the images, at least a batch, as run through the network at once."""
    wanted = max(len(batches[0]), images_at_once(network, sum(map(len, batches))))
    return torch.cat(list(batches[: -(-wanted // len(batches[0]))]))[:wanted]
