"""Quantization after training: each step does what it says, and what is kept is what brings the output nearer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from networks import images
from quantize_toy import conv_bn, mini, pictures, plain, ready, rounded_by, trained
from torch import Tensor, fx, nn

from compress.quantize.bias_correction import correct_biases
from compress.quantize.equalization import equalized
from compress.quantize.graph import Network, network_of
from compress.quantize.ptq import AUTO, PtqConfig, judge_of, quantize
from compress.quantize.ranges import CALIBRATIONS
from compress.quantize.scheme import read_precision, uniform
from compress.quantize.simulate import weight_of
from nas.errors import InvalidSetting

SHAPE = (3, 8, 8)


def weights_of(network: Network) -> list[Tensor]:
    return [weight_of(network.module, network, layer.node).detach() for layer in network.layers]


def uneven(network: Network) -> Network:
    """Channels whose weights differ a hundredfold, as those of real networks do."""
    with torch.no_grad():
        for place, weight in enumerate(weights_of(network)):
            gains = torch.logspace(-1, 1, len(weight)) ** (-1) ** place
            weight.mul_(gains.reshape(-1, *(1 for _ in weight.shape[1:])))
    return network


# -- equalization

PAIRS = {
    "convolutions": [*conv_bn(3, 6), nn.ReLU(), *conv_bn(6, 4)],
    "without activation": [nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)],
    "depthwise": [*conv_bn(3, 6), nn.ReLU(), *conv_bn(6, 6, groups=6)],
    "linear": [nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5)],
}


@pytest.mark.parametrize("name", PAIRS)
def test_equalized_networks_compute_the_same(name):
    network, x = uneven(plain(*PAIRS[name])), images(4, *SHAPE)
    found = equalized(network)
    with torch.no_grad():
        wanted = network.module(x)
        assert torch.allclose(found.module(x), wanted, atol=1e-5 * float(wanted.abs().max()))
    before, after = (shared_ranges(weights_of(n)) for n in (network, found))
    assert torch.allclose(*after, rtol=1e-3) and not torch.allclose(*before, rtol=0.5)


def shared_ranges(weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What the channels between two layers have: largest weight that puts them out, largest that reads them."""
    one, two = weights
    reads = two.flatten(1) if two.shape[1] == 1 else two.transpose(0, 1).flatten(1)
    return one.flatten(1).abs().amax(1), reads.abs().amax(1)


class Twice(nn.Module):
    """A convolution that reads its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(x)))


class Rows(nn.Module):
    """A linear layer that reads rows of pixels, as many as there are channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.relu(self.conv(x)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return x + self.two(F.relu(x))


UNTOUCHED = {
    "relu6": nn.Sequential(*conv_bn(3, 6), nn.ReLU6(), *conv_bn(6, 4)),
    "pooled": nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    "two channels of each": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4)),
    "groups": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)),
    "shared": Twice(),
    "rows": Rows(),
    "residual": Residual(),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_layers_that_cannot_be_equalized_are_left(name):
    network = network_of(ready(UNTOUCHED[name]), SHAPE)
    found = equalized(network)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(network), weights_of(found), strict=True))


# -- bias correction


class Outputs(fx.Interpreter):
    """Notes what nodes put out."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n.name] = value.detach()
        return value


def outputs(module: fx.GraphModule, x: Tensor) -> dict[str, Tensor]:
    runs = Outputs(module)
    runs.run(x)
    return runs.found


def channel_means(value: Tensor) -> Tensor:
    return value.mean([d for d in range(value.ndim) if d != 1])


def test_corrected_channels_have_the_means_of_the_network():
    network, x = mini(), pictures(24)
    module = rounded_by(network, "w3a8", x)
    corrected = copy.deepcopy(module)
    correct_biases(corrected, network, x)
    wanted, before, after = (outputs(m, x) for m in (network.module, module, corrected))
    for layer in network.layers:
        means = [channel_means(found[layer.node]) for found in (wanted, before, after)]
        assert torch.allclose(means[0], means[2], atol=1e-5)
        assert (means[0] - means[1]).abs().max() > 1e-3
    assert torch.equal(network.module(x), mini().module(x))


def test_a_bias_that_two_layers_share_is_not_corrected():
    network, x = network_of(ready(Twice()), SHAPE), images(4, *SHAPE)
    module = rounded_by(network, "w2a8", x)
    correct_biases(module, network, x)
    assert torch.equal(module.conv.bias, network.module.conv.bias)


# -- the whole


@pytest.fixture(scope="module")
def learned():
    """A network that tells digits apart, and training images in batches."""
    return trained()


def error_of(learned, precision: str, **options: object) -> float:
    network, batches = learned
    return quantize(network, uniform(network, *read_precision(precision)), batches, PtqConfig(**options)).error


def test_the_error_is_the_divergence_of_probabilities(learned):
    network, batches = learned
    judge = judge_of(network, batches)
    assert judge.error(network.module) == 0
    module = rounded_by(network, "w3a4", batches[0])
    with torch.no_grad():
        p, q = (torch.cat([m(x) for x in batches]).softmax(1) for m in (network.module, module))
    assert judge.error(module) == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-3)


@pytest.mark.parametrize("precision", ["int8", "w4a4"])
def test_the_calibration_of_least_error_is_taken(learned, precision):
    alone = {name: error_of(learned, precision, calibration=name, equalize=False, correct_bias=False) for name in CALIBRATIONS}
    network, batches = learned
    found = quantize(network, uniform(network, *read_precision(precision)), batches, PtqConfig(AUTO, False, False))
    assert found.error == min(alone.values()) == alone[found.calibration] and not (found.equalized or found.corrected)
    assert found.error == pytest.approx(judge_of(network, batches[1::2]).error(found.module))
    assert error_of(learned, precision) <= found.error


@pytest.mark.parametrize("precision", ["int8", "w3a8"])
def test_what_does_not_help_is_not_done(learned, precision):
    network, batches = learned
    for options in ({"equalize": True, "correct_bias": False}, {"equalize": False, "correct_bias": True}):
        found = quantize(network, uniform(network, *read_precision(precision)), batches, PtqConfig("mse", **options))
        plainly = error_of(learned, precision, calibration="mse", equalize=False, correct_bias=False)
        assert found.error < plainly if found.equalized or found.corrected else found.error == plainly


def test_more_bits_diverge_less(learned):
    weights = [error_of(learned, f"w{bits}a8") for bits in (2, 3, 4, 6, 8)]
    activations = [error_of(learned, f"w8a{bits}") for bits in (2, 3, 4, 6, 8)]
    for errors in (weights, activations):
        assert errors == sorted(errors, reverse=True) and errors[0] > 10 * errors[-1] > 0
    assert error_of(learned, "w16a16") < min(weights[-1], activations[-1])


def test_one_batch_is_enough(learned):
    network, batches = learned
    found = quantize(network, uniform(network, "8", "8"), batches[:1], PtqConfig())
    assert found.error == pytest.approx(judge_of(network, batches[:1]).error(found.module))


def test_quantizing_leaves_the_network_alone(learned):
    network, batches = learned
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    quantize(network, uniform(network, "4", "4"), batches, PtqConfig())
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_unknown_calibrations():
    with pytest.raises(InvalidSetting, match="--calibration 'max' is not known; choose auto or one of min-max, percentile"):
        PtqConfig("max")
