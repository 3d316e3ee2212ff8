"""Bits of each layer: what rounding costs, and the choice under budgets."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from networks import images
from quantize_toy import mini, pictures, plain, trained
from torch import nn

from compress.quantize import sensitivity
from compress.quantize.bits import MixConfig, cost_of, mixed, stored_bytes
from compress.quantize.formats import FLOAT
from compress.quantize.graph import Network
from compress.quantize.ptq import judge_of
from compress.quantize.scheme import Scheme, uniform
from compress.quantize.sensitivity import SENSITIVITIES, rounded
from compress.quantize.simulate import weight_of
from nas.budget import Budget, Cost, Metric, check
from nas.errors import InfeasibleBudget, InvalidBudget, InvalidSetting

FORMATS = ("2", "3", "4", "6", "8", FLOAT)
BITS = MixConfig().weights


@pytest.fixture(scope="module")
def learned():
    return trained()


def original_of(network: Network) -> Cost:
    """Of a network whose layers are all that multiplies."""
    counted = Metric(sum(layer.macs for layer in network.layers), "multiply-adds", "plan")
    return cost_of(network, uniform(network, FLOAT, FLOAT), Cost({"macs": counted}))


def size_of(network: Network, scheme: Scheme) -> float:
    return cost_of(network, scheme, original_of(network)).metrics["size_bytes"].value


def total(losses, scheme: Scheme) -> float:
    return sum(losses[name][number] for name, number in scheme.weights.items())


# -- sensitivities


@pytest.mark.parametrize("name", SENSITIVITIES)
def test_every_sensitivity(name, learned):
    network, batches = learned
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    losses = SENSITIVITIES[name](network, FORMATS, batches[:1])
    assert losses == SENSITIVITIES[name](network, FORMATS, batches[:1])
    assert list(losses) == [layer.name for layer in network.layers]
    for found in losses.values():
        assert tuple(found) == FORMATS and found[FLOAT] == 0
        assert all(more > less > 0 for more, less in pairwise([found[bits] for bits in BITS]))
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())
    assert all(p.grad is None for p in network.module.parameters())


@pytest.mark.parametrize("name", sorted(set(SENSITIVITIES) - {"output-error"}))  # which looks no further than the layer
def test_what_the_output_does_not_depend_on_costs_nothing(name):
    network = plain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    weight_of(network.module, network, network.layers[-1].node).data.zero_()
    losses = SENSITIVITIES[name](network, ["3"], [images(8, 3, 8, 8)])
    assert [losses[layer.name]["3"] for layer in network.layers[:2]] == [0, 0]


def test_ablation_is_the_divergence_of_one_rounded_layer(learned):
    network, batches = learned
    losses = SENSITIVITIES["ablation"](network, ["3"], batches)
    judge, layer = judge_of(network, batches), network.layers[1]
    weight = weight_of(network.module, network, layer.node)
    kept = weight.detach().clone()
    weight.data = rounded(weight, "3")
    error = judge.error(network.module)
    weight.data = kept
    assert losses[layer.name]["3"] == pytest.approx(error)


def test_output_error_of_a_linear_layer():
    network, x = plain(nn.Flatten(), nn.Linear(12, 5), shape=(3, 2, 2)), images(16, 3, 2, 2)
    weight = network.module.get_parameter("1.weight")
    error = x.flatten(1) @ (rounded(weight, "4") - weight).T
    expected = error.square().mean() / network.module(x).square().mean()
    found = SENSITIVITIES["output-error"](network, ["4"], [x])
    assert found["1"]["4"] == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_hessian_trace_is_that_of_the_exact_hessian(monkeypatch):
    monkeypatch.setattr(sensitivity, "HUTCHINSON_SAMPLES", 1000)
    network = plain(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), shape=(1, 2, 2))
    x = images(8, 1, 2, 2)
    found = SENSITIVITIES["hessian"](network, ["4"], [x])
    weights = [weight_of(network.module, network, layer.node).detach() for layer in network.layers]
    biases = [network.module.get_parameter(f"{place}.bias").detach() for place in (1, 3)]
    targets = network.module(x).softmax(1).detach()

    def loss(one, two):
        logits = (x.flatten(1) @ one.T + biases[0]).relu() @ two.T + biases[1]
        return -(targets * logits.log_softmax(1)).sum(1).mean()

    for place, (layer, weight) in enumerate(zip(network.layers, weights, strict=True)):
        hessian = torch.autograd.functional.hessian(loss, tuple(weights))[place][place].reshape(weight.numel(), -1)
        error = (rounded(weight, "4") - weight).square().sum()
        expected = float(0.5 * hessian.trace() / weight.numel() * error)
        assert found[layer.name]["4"] == pytest.approx(expected, rel=0.06)


def test_relevance_of_layers_is_that_of_their_outputs():
    """Gradient times value, of the class that is told: here by hand, for a network of two layers."""
    network = plain(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), shape=(1, 2, 2))
    x = images(8, 1, 2, 2)
    one, two = (weight_of(network.module, network, layer.node) for layer in network.layers)
    hidden = torch.nn.functional.linear(x.flatten(1), one, network.module.get_parameter("1.bias"))
    logits = torch.nn.functional.linear(hidden.relu(), two, network.module.get_parameter("3.bias"))
    top = logits.argmax(1)
    passed = [(hidden.relu() * two[top]).abs().sum(), logits.gather(1, top[:, None]).abs().sum()]
    found = SENSITIVITIES["lrp"](network, ["4"], [x])
    for layer, weight, part in zip(network.layers, (one, two), passed, strict=True):
        error = (rounded(weight, "4") - weight).square().sum() / weight.square().sum()
        assert found[layer.name]["4"] == pytest.approx(float((part / sum(passed) * error).detach()), rel=1e-4)


# -- costs


def test_costs_by_hand():
    network = mini()
    original = original_of(network)
    params, channels, macs = 216 + 72 + 64 + 40, 8 + 8 + 8 + 5, 64 * (216 + 72 + 64) + 40
    assert original.values() == {"macs": macs, "size_bytes": 4 * (params + channels), "bitops": 32 * 32 * macs}
    found = cost_of(network, uniform(network, "4", "8", {"stem.0": FLOAT}), original).values()
    assert found["size_bytes"] == 216 * 4 + 8 * 4 + (params - 216) / 2 + (channels - 8) * 8
    assert found["bitops"] == 64 * 216 * 32 * 32 + 32 * (macs - 64 * 216) and found["macs"] == macs
    assert stored_bytes(network.layers[1], "2") == 72 / 4 + 8 * 8


def test_products_that_are_no_layers_count_in_the_format_of_the_others():
    network = mini()
    more = Cost({"macs": Metric(original_of(network).values()["macs"] + 1000, "multiply-adds", "plan")})
    difference = [cost_of(network, uniform(network, "4", "6"), c).values()["bitops"] for c in (more, original_of(network))]
    assert difference[0] - difference[1] == 1000 * 36


def test_a_layer_multiplies_in_the_widest_format_of_what_it_reads():
    network = plain(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1))
    scheme = uniform(network, "8", "4", {"0": FLOAT})
    assert cost_of(network, scheme, original_of(network)).values()["bitops"] == 64 * (12 * 32 * 32 + 16 * 8 * 4)


# -- the choice


@pytest.mark.parametrize("name", SENSITIVITIES)
@pytest.mark.parametrize("bits", ["3", "4", "6"])
def test_mixed_bits_lose_no_more_than_uniform_ones_of_that_size(name, bits, learned):
    network, batches = learned
    even = uniform(network, bits, "8")
    budget = Budget.parse(f"{size_of(network, even)}B")
    found = mixed(network, [budget], original_of(network), batches[:1], MixConfig(sensitivity=name))
    assert size_of(network, found.scheme) <= budget.limit
    assert total(found.losses, found.scheme) <= total(found.losses, even)


def test_no_other_choice_loses_less(learned):
    network, batches = learned
    limit = size_of(network, uniform(network, "4", "8"))
    found = mixed(network, [Budget.parse(f"{limit}B")], original_of(network), batches[:1], MixConfig())
    names = [layer.name for layer in network.layers]
    every = (Scheme(dict(zip(names, choice, strict=True)), found.scheme.inputs) for choice in product(BITS, repeat=len(names)))
    best = min(total(found.losses, scheme) for scheme in every if size_of(network, scheme) <= limit)
    assert total(found.losses, found.scheme) == pytest.approx(best)


@pytest.mark.parametrize(
    ("shares", "inputs"),
    [
        ({"bitops": 0.04}, ("8",)),
        ({"bitops": 0.02}, ("4", "8")),
        ({"size_bytes": 0.25, "bitops": 0.035}, ("8",)),
        ({"size_bytes": 0.4, "bitops": 0.025}, ("8",)),
        ({"size_bytes": 0.24, "bitops": 0.06}, ("8",)),
        ({"size_bytes": 0.3, "bitops": 0.03}, ("4", "6", "8")),
    ],
)
def test_budgets_are_kept(shares, inputs, learned):
    network, batches = learned
    original = original_of(network)
    units = {"size_bytes": "B", "bitops": "BitOps"}
    budgets = [Budget.parse(f"{share * original.values()[metric]:.0f}{units[metric]}") for metric, share in shares.items()]
    found = mixed(network, budgets, original, batches[:1], MixConfig(inputs=inputs, sensitivity="output-error"))
    cost = cost_of(network, found.scheme, original)
    assert check(budgets, cost) == []
    # bits are not given away: one of the budgets is nearly used up
    assert max(cost.value(b.metric) / b.limit for b in budgets) > 0.8
    assert set(found.scheme.inputs.values()) <= set(inputs) and set(found.scheme.weights.values()) <= set(BITS)


class Fork(nn.Module):
    """Two convolutions that read the same."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        return (self.left(x) * self.right(x)).mean((2, 3))


def test_what_two_layers_read_is_not_free():
    """Rounding it costs, whichever of them it is told to belong to: where the budget has room for 8 bits they are taken."""
    network, x = plain(Fork()), images(8, 3, 8, 8)
    original = original_of(network)
    room = cost_of(network, uniform(network, "8", "8"), original).values()["bitops"]
    found = mixed(network, [Budget.parse(f"{room}BitOps")], original, [x], MixConfig(("8",), ("2", "8")))
    assert found.scheme == uniform(network, "8", "8")


def test_budgets_that_no_bits_keep(learned):
    network, batches = learned
    with pytest.raises(InfeasibleBudget, match="no choice of bits keeps '100B': with the fewest that"):
        mixed(network, [Budget.parse("100B")], original_of(network), batches[:1], MixConfig(sensitivity="output-error"))
    least = size_of(network, uniform(network, "2", "8"))
    found = mixed(
        network, [Budget.parse(f"{least}B")], original_of(network), batches[:1], MixConfig(sensitivity="output-error")
    )
    assert set(found.scheme.weights.values()) == {"2"}


@pytest.mark.parametrize("text", ["5ms", "1MFLOPs", "50%", "1kBpeak"])
def test_budgets_that_bits_do_not_change(text, learned):
    network, batches = learned
    with pytest.raises(InvalidBudget, match=f"budget '{text}' does not depend on bits; give stored weights"):
        mixed(network, [Budget.parse(text)], original_of(network), batches[:1], MixConfig())


def test_bits_need_a_budget():
    network = mini()
    with pytest.raises(InvalidBudget, match="bits are chosen under a budget; give one"):
        mixed(network, [], original_of(network), [pictures(2)], MixConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": ("4", "5")}, "--bits '5' is not a number format; choose of 2, 3, 4"),
        ({"inputs": ("int8",)}, "'int8' is not a number format"),
        ({"sensitivity": "fisher"}, "--sensitivity 'fisher' is not known; choose one of ablation, output-error, hessian, lrp"),
    ],
)
def test_configurations_that_are_none(options, message):
    with pytest.raises(InvalidSetting, match=message):
        MixConfig(**options)
