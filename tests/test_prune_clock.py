"""Times of a network at any width, learned from timings at some widths: machines of which the truth is known."""

from math import ceil, prod

import numpy as np
import pytest
from prune_toy import chain, cifar_resnet, group, linear

from compress.prune import clock
from compress.prune.clock import BLOCKS, LATENCY, TimeModel, features, fit, probes
from compress.prune.widths import WidthModel
from nas.plan import INPUT, ConvSpec, Layer, Plan, conv
from nas.seeding import numpy_rng


def inverted():
    """Expansion, depthwise convolution and projection, at two resolutions."""
    layers, source, side = [], INPUT, 16
    groups = []
    for i, (before, middle, after, stride) in enumerate([(3, 48, 24, 1), (24, 96, 40, 2), (40, 160, 64, 1)]):
        names = [f"{part}{i}" for part in ("expand", "depthwise", "project")]
        size, smaller = (side, side), (side // stride, side // stride)
        layers.append(conv(names[0], source, (before, middle), size, ConvSpec(1, act="relu")))
        layers.append(conv(names[1], names[0], (middle, middle), size, ConvSpec(3, stride, groups=middle, act="relu")))
        layers.append(conv(names[2], names[1], (middle, after), smaller, ConvSpec(1)))
        following = f"expand{i + 1}" if i < 2 else "linear"
        groups += [group(names[0], middle, [names[2]]), group(names[2], after, [following])]
        source, side = names[2], side // stride
    layers.append(Layer("pool", "pool", (source,), 64, 64, (side, side), (1, 1)))
    return WidthModel(Plan(3, (16, 16), (*layers, linear("pool", 64))), tuple(groups))


NETWORKS = {"cifar-resnet": lambda: cifar_resnet(20), "inverted": inverted, "chain": lambda: chain(48, 96, 160, side=16)}


def in_blocks(plan: Plan, block: int) -> float:
    """Milliseconds of a machine that computes and writes channels in blocks, each kind of layer at its own speed."""
    total = 0.02
    for x in plan.layers:
        outs, ins = ceil(x.out_channels / block), ceil(x.in_channels / block)
        area = prod(x.out_size)
        total += 0.003 + 2e-6 * block * outs * area
        if x.op in ("conv", "linear"):
            speed = {(1, 1): 1e-7, (3, 3): 4e-8}[x.kernel] * (2 if x.stride == (2, 2) else 1) * (1 + 8 / area)
            macs = prod(x.kernel) * area * block * outs * (1 if x.groups > 1 else block * ins)
            total += speed * macs * (20 if x.groups > 1 else 1)
    return total


def times(plans, block, noise=0.0):
    rng = numpy_rng(0, "noise")
    return [in_blocks(plan, block) * (1 + noise * rng.normal()) for plan in plans]


def unseen(widths: WidthModel, number: int = 30) -> list[Plan]:
    rng = numpy_rng(0, "unseen")
    keeps = ({g.name: int(rng.integers(ceil(g.width / 10), g.width + 1)) for g in widths.groups} for _ in range(number))
    return [widths.plan_with(keep) for keep in keeps]


# -- a machine that works in blocks


@pytest.mark.parametrize("block", [4, 16, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_block_and_times_of_a_machine_are_found(name, block):
    widths = NETWORKS[name]()
    plans = list(probes(widths, 4, 0.1, seed=0).values())
    model = fit(plans, times(plans, block))
    assert model.block == block and model.error < 0.01 and model.networks == len(plans)
    assert all(price >= 0 for price in model.prices.values())
    for plan in unseen(widths):
        metric = model(plan)[LATENCY]
        assert metric.unit == "ms" and metric.value == pytest.approx(in_blocks(plan, block), rel=0.02)


def test_times_that_are_noisy():
    widths = cifar_resnet(20)
    plans = list(probes(widths, 4, 0.1, seed=0).values())
    model = fit(plans, times(plans, 16, noise=0.02))
    assert model.block == 16 and 0.005 < model.error < 0.02
    errors = [model(plan)[LATENCY].value / in_blocks(plan, 16) - 1 for plan in unseen(widths)]
    assert np.mean(np.abs(errors)) < 0.02
    metric = model(widths.plan)[LATENCY]
    assert metric.spread == model.error * metric.value and f"{len(plans)} timings" in metric.context


def test_a_width_curve_falls_in_steps():
    widths = chain(64, 64, side=8)
    plans = list(probes(widths, 4, 0.1, seed=0).values())
    model = fit(plans, times(plans, 16))
    curve = [model(widths.plan_with({"conv0": units}))[LATENCY].value for units in range(1, 65)]
    assert len({round(value, 9) for value in curve}) == 4 and curve == sorted(curve)
    assert curve[15] == curve[0] < curve[16] == curve[31] < curve[32]


def test_of_blocks_that_explain_about_as_much_the_smallest(monkeypatch):
    widths = chain(64, 128)
    plans = [widths.plan_with({"conv0": a, "conv1": b}) for a in range(16, 65, 16) for b in range(16, 129, 16)]
    noisy = times(plans, 1, noise=0.1)
    assert fit(plans, noisy).block == 1
    monkeypatch.setattr(clock, "MARGIN", 1.0)
    assert fit(plans, noisy).block > 1


def test_weights_say_which_timings_count():
    widths = chain(32, 32)
    plans = [widths.plan_with({"conv0": units}) for units in range(4, 33, 4)] * 2
    right, wrong = times(plans[:8], 1), [2 * ms for ms in times(plans[8:], 1)]
    model = fit(plans, right + wrong, [1.0] * 8 + [1e-9] * 8)
    assert [model(plan)[LATENCY].value for plan in plans[:8]] == pytest.approx(right, rel=0.01)


# -- features


def test_features_by_hand():
    layers = (
        conv("a", INPUT, (3, 20), (8, 8), ConvSpec(3, 2)),
        conv("b", "a", (20, 20), (4, 4), ConvSpec(5, groups=20)),
        conv("c", "b", (20, 12), (4, 4), ConvSpec(1, groups=4)),
        Layer("pool", "pool", ("c",), 12, 12, (4, 4), (1, 1)),
        linear("pool", 12),
    )
    assert features(Plan(3, (8, 8), layers), 16) == {
        "conv (3, 3) (2, 2) 4x4 macs": 16 * 32 * 9 * 16,
        "depthwise (5, 5) (1, 1) 4x4 macs": 32 * 25 * 16,
        "conv (1, 1) (1, 1) 4x4 macs": 32 / 4 * 16 * 16,
        "linear (1, 1) (1, 1) 1x1 macs": 16 * 16,
        "4x4 values": (32 + 32 + 16) * 16,
        "1x1 values": 16 + 16,
        "layers": 5,
    }


def test_what_was_never_timed_costs_nothing():
    model = TimeModel(8, {"layers": 0.5}, 0.1, 3)
    assert model(chain(8, 8).plan)[LATENCY].value == 0.5 * 4


# -- what is timed


@pytest.mark.parametrize("name", NETWORKS)
def test_probes_are_networks_of_many_widths(name):
    widths = NETWORKS[name]()
    found = probes(widths, 8, 0.25, seed=0)
    assert found["whole"] == widths.plan and found == probes(widths, 8, 0.25, seed=0) != probes(widths, 8, 0.25, seed=1)
    for g in widths.groups:
        kept = {next(x.out_channels for x in plan.layers if x.name == g.name) for plan in found.values()}
        assert min(kept) >= 0.25 * g.width and max(kept) == g.width and len(kept) >= 4
    assert set(BLOCKS) >= {1, 16}


def test_groups_of_one_kind_are_timed_together():
    found = probes(cifar_resnet(20), 8, 0.25, seed=0)
    narrow = [name for name in found if name.startswith("kind")]
    # three stages, and the two blocks that begin the later ones
    assert len(narrow) == 2 * 5
    inner = [x.out_channels for x in found["kind 0 0.0"].layers if x.name.endswith("conv1") and "layer" in x.name]
    assert inner == [4, 4, 4, 32, 32, 32, 64, 64, 64]
