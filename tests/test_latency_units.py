"""Cutting plans into units: every layer once, residual blocks whole, the same for a space's plan and a traced module."""

import pytest
import torch
from networks import space_for

from nas.cost.trace import trace
from nas.latency.units import channels, segments, single_layers, template, units
from nas.plan import INPUT, ConvSpec, Layer, Plan, conv
from nas.seeding import numpy_rng
from nas.supernet.blocks import BlockSpec, add, basic_block_layers, head_layers, inverted_residual_layers
from search_spaces.staged import DataShape

SIZE = (8, 8)


def plan_of(*layers):
    return Plan(layers[0].in_channels, layers[0].in_size, layers)


def keys(plan):
    return [unit.key for unit in units(plan)]


def test_a_chain_is_cut_at_every_layer():
    first = conv("a", INPUT, (3, 16), SIZE, ConvSpec(3, act="relu"))
    second = conv("b", "a", (16, 32), SIZE, ConvSpec(5, 2, groups=2))
    assert keys(plan_of(first, second)) == ["c3 8x8 | conv 3x3 c16 relu", "c16 8x8 | conv 5x5/2 c32 g2"]


def test_residual_blocks_are_whole():
    block = basic_block_layers("b", INPUT, SIZE, BlockSpec(16, 16, 24))
    assert keys(plan_of(*block)) == ["c16 8x8 | conv 3x3 c24 relu | conv 3x3 c16 | add c16 relu (2,0)"]
    projected = basic_block_layers("b", INPUT, SIZE, BlockSpec(16, 32, 24, stride=2, projects=True))
    assert keys(plan_of(*projected)) == [
        "c16 8x8 | conv 3x3/2 c24 relu | conv 3x3 c32 | conv 1x1/2 c32 (0) | add c32 relu (2,3)"
    ]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("squeeze_excite", [True, False])
def test_inverted_residuals_are_whole_with_and_without_a_shortcut(residual, squeeze_excite):
    spec = BlockSpec(16, 16, 48, kernel=5, squeeze_excite=squeeze_excite, residual=residual)
    stem = conv("stem", INPUT, (3, 16), SIZE, ConvSpec(3, act="relu"))
    found = units(plan_of(stem, *inverted_residual_layers("b", "stem", SIZE, spec)))
    assert len(found) == 2
    assert found[1].key.startswith("c16 8x8 | conv 1x1 c48 relu | conv 5x5 c48 depthwise relu |")
    assert found[1].key.endswith(
        "add c16 (0,7)" if residual and squeeze_excite else "add c16 (0,3)" if residual else "conv 1x1 c16"
    )


def test_pooling_and_classifier_are_one():
    assert keys(plan_of(*head_layers("head", INPUT, (16, 10), SIZE))) == ["c16 8x8 | pool c16 | linear c10"]


def test_two_sums_in_a_row_are_told_apart():
    a = conv("a", INPUT, (8, 8), SIZE, ConvSpec(1))
    early = add("early", (INPUT, "a"), a)
    b = conv("b", "early", (8, 8), SIZE, ConvSpec(1))
    assert len(units(plan_of(a, early, b, add("late", ("early", "b"), b)))) == 2
    assert len(units(plan_of(a, early, b, add("late", ("a", "b"), b)))) == 1, "the first output is alive to the end"


def test_names_and_sources_do_not_matter():
    def block(name, source):
        return inverted_residual_layers(name, source, SIZE, BlockSpec(16, 16, 48))

    stem = conv("stem", INPUT, (3, 16), SIZE, ConvSpec(3, act="relu"))
    (alone,) = units(plan_of(*block("x", INPUT)))
    inside = units(plan_of(stem, *block("y", "stem")))[1]
    assert alone.key == inside.key
    assert alone.plan.canonical() == inside.plan.canonical()


def test_what_changes_the_time_changes_the_key():
    base = dict(kernel=3, stride=1, groups=1, act="relu")
    variants = [base, *({**base, **change} for change in ({"kernel": 5}, {"stride": 2}, {"groups": 2}, {"act": ""}))]
    layers = [conv("a", INPUT, (16, 16), SIZE, ConvSpec(**v)) for v in variants]
    layers.append(conv("a", INPUT, (16, 16), (16, 16), ConvSpec(**base)))
    layers.append(conv("a", INPUT, (16, 24), SIZE, ConvSpec(**base)))
    assert len({units(plan_of(layer))[0].key for layer in layers}) == len(layers)


def test_channels_and_template():
    (unit,) = units(plan_of(conv("a", INPUT, (16, 24), SIZE, ConvSpec(3))))
    assert channels(unit.key) == (16, 24)
    assert template(unit.key) == "c* 8x8 | conv 3x3 c*"


def test_weights_and_border():
    (unit,) = units(plan_of(conv("a", INPUT, (16, 24), SIZE, ConvSpec(3, 2, norm=False))))
    assert (unit.weights, unit.border) == (16 * 24 * 9, 16 * 64 + 24 * 16)


@pytest.mark.parametrize("name", ["mobilenet", "resnet"])
def test_cuts_hold_every_layer_once_and_agree_with_the_traced_module(name):
    space, rng = space_for(name, "20MFLOPs", DataShape(3, 32, 10)), numpy_rng(0, "units")
    for arch in (space.smallest(), space.largest(), space.sample(rng), space.sample(rng)):
        plan = space.plan(arch)
        for cut in (units, segments, single_layers):
            assert [layer.name for unit in cut(plan) for layer in unit.plan.layers] == [layer.name for layer in plan.layers]
        side = arch.choices["resolution"]
        traced = trace(space.network(arch).eval(), torch.zeros(1, 3, side, side))
        assert keys(traced) == keys(plan)


def test_a_layer_that_nothing_reads_does_not_end_a_unit():
    idle = Layer("idle", "parameter", (), 4, 4, (1, 1), (1, 1))
    first = conv("a", INPUT, (4, 4), SIZE, ConvSpec(1))
    assert len(units(plan_of(first, idle, conv("b", "a", (4, 4), SIZE, ConvSpec(1))))) >= 2
