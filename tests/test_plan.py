"""Plans: blocks are chained, sizes follow the convolution, structure is compared without names."""

from dataclasses import replace

import pytest
import torch
import torch.nn as nn
from toy_space import ToySpace

from nas.plan import INPUT, ConvSpec, Layer, Plan, PlanBlock, assemble, conv, out_size


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (8, 9), (31, 32)])
def test_out_size_is_that_of_a_padded_convolution(size, stride, kernel):
    with torch.device("meta"):
        out = nn.Conv2d(1, 1, kernel, stride, kernel // 2)(torch.empty(1, 1, *size))
    assert tuple(out.shape[2:]) == out_size(size, stride)


def test_conv_describes_its_spec():
    layer = conv("a.b", INPUT, (4, 8), (9, 7), ConvSpec(5, 2, groups=4, bias=True, norm=False, act="relu"))
    assert layer == Layer(
        name="a.b",
        op="conv",
        inputs=(INPUT,),
        in_channels=4,
        out_channels=8,
        in_size=(9, 7),
        out_size=(5, 4),
        kernel=(5, 5),
        stride=(2, 2),
        groups=4,
        bias=True,
        norm=False,
        act="relu",
    )
    assert layer.out_elements == 8 * 5 * 4
    assert conv("a", INPUT, (1, 1), (2, 2), ConvSpec()).norm


def passing(name: str) -> PlanBlock:
    """A block with one layer, unless its choice is None, that notes what it was given."""

    def build(values, source):
        given = ",".join(f"{n}={v}" for n, v in values.items())
        return [] if values[name] is None else [replace(conv(name, source, (1, 1), (4, 4), ConvSpec()), act=given)]

    return PlanBlock(name, (name, "shared"), build)


def test_blocks_are_chained_over_those_that_are_bypassed():
    plan = assemble([passing("a"), passing("b"), passing("c")], {"a": 1, "c": 3, "shared": 0, "other": 9})
    assert [(x.name, x.inputs) for x in plan.layers] == [("a", (INPUT,)), ("c", ("a",))]
    assert (plan.input_channels, plan.input_size) == (1, (4, 4))


def test_block_sees_the_choices_that_it_names_and_none_for_those_that_do_not_exist():
    plan = assemble([passing("a")], {"a": 1, "other": 9})
    assert plan.layers[0].act == "a=1,shared=None"


def test_canonical_plans_compare_by_structure():
    space = ToySpace()
    plan = space.plan(space.largest())
    renamed = {INPUT: INPUT, **{x.name: f"other.{x.name}" for x in plan.layers}}
    layers = [replace(x, name=renamed[x.name], inputs=tuple(renamed[n] for n in x.inputs)) for x in plan.layers]
    other = Plan(plan.input_channels, plan.input_size, tuple(layers))
    assert other != plan
    assert other.canonical() == plan.canonical() == plan.canonical().canonical()
    assert hash(other.canonical()) == hash(plan.canonical())
    assert [x.name for x in plan.canonical().layers] == [str(i) for i in range(len(plan.layers))]


def test_canonical_plans_tell_wiring_and_layers_apart():
    a = conv("a", INPUT, (1, 1), (4, 4), ConvSpec())
    b = conv("b", "a", (1, 1), (4, 4), ConvSpec())
    total = Layer("sum", "add", ("a", "b"), 1, 1, (4, 4), (4, 4))
    plans = [
        Plan(1, (4, 4), (a, b, total)),
        Plan(1, (4, 4), (a, replace(b, inputs=(INPUT,)), total)),
        Plan(1, (4, 4), (a, b, replace(total, inputs=("b", "a")))),
        Plan(1, (4, 4), (a, replace(b, weight_bits=8), total)),
        Plan(1, (4, 4), (a, b)),
    ]
    assert len({p.canonical() for p in plans}) == len(plans)
