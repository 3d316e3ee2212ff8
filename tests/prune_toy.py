"""Plans and groups for tests of widths and allocations: chains, where costs are coupled, and residual networks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from compress.prune.groups import IN, OUT, Group, Member
from compress.prune.problem import Problem
from compress.prune.widths import Latency, WidthModel
from nas.budget import Budget, Metric
from nas.plan import INPUT, ConvSpec, Layer, Plan, conv
from nas.seeding import numpy_rng


def member(layer, side, width, each=1, start=0):
    """Units of `each` neighbouring channels."""
    return Member(layer, side, tuple(tuple(range(start + u * each, start + (u + 1) * each)) for u in range(width)))


def group(name, width, readers, each=1, multiple_of=1):
    """A group that one layer writes."""
    members = (member(name, OUT, width, each), *(member(reader, IN, width, each) for reader in readers))
    return Group(name, width, members, multiple_of)


def linear(source, channels, classes=10):
    return Layer("linear", "linear", (source,), channels, classes, (1, 1), (1, 1), bias=True)


def chain(*widths, side=8):
    """Convolutions one after the other, each of which is a group: what one costs depends on its neighbours."""
    layers, source = [], INPUT
    for i, (before, after) in enumerate(zip((3, *widths), widths, strict=False)):
        layers.append(conv(f"conv{i}", source, (before, after), (side, side), ConvSpec(3, act="relu")))
        source = f"conv{i}"
    layers.append(Layer("pool", "pool", (source,), widths[-1], widths[-1], (side, side), (1, 1)))
    layers.append(linear("pool", widths[-1]))
    readers = [*(f"conv{i}" for i in range(1, len(widths))), "linear"]
    groups = tuple(group(f"conv{i}", width, [readers[i]]) for i, width in enumerate(widths))
    return WidthModel(Plan(3, (side, side), tuple(layers)), groups)


def cifar_resnet(depth=56, latency: Latency | None = None):
    """The plan of a CIFAR ResNet with option-A shortcuts; groups are the channels inside of its blocks."""
    layers = [conv("conv1", INPUT, (3, 16), (32, 32), ConvSpec(3, act="relu"))]
    groups, before, size = [], 16, (32, 32)
    for stage, channels in enumerate((16, 32, 64), 1):
        for block in range((depth - 2) // 6):
            name, source = f"layer{stage}.{block}", layers[-1].name
            stride = 1 if channels == before else 2
            layers.append(conv(f"{name}.conv1", source, (before, channels), size, ConvSpec(3, stride, act="relu")))
            inner = layers[-1].out_size
            layers.append(conv(f"{name}.conv2", layers[-1].name, (channels, channels), inner, ConvSpec(3)))
            if stride == 2:
                every = Layer(f"{name}.every", "maxpool", (source,), before, before, size, inner, stride=(2, 2))
                layers[-1:] = [layers[-1], every, Layer(f"{name}.pad", "pad", (every.name,), before, channels, inner, inner)]
                source = f"{name}.pad"
            inputs = (f"{name}.conv2", source)
            layers.append(Layer(f"{name}.add", "add", inputs, channels, channels, inner, inner, act="relu"))
            groups.append(group(f"{name}.conv1", channels, [f"{name}.conv2"]))
            before, size = channels, inner
    layers.append(Layer("pool", "pool", (layers[-1].name,), 64, 64, size, (1, 1)))
    layers.append(linear("pool", 64))
    return WidthModel(Plan(3, (32, 32), tuple(layers)), tuple(groups), latency)


def in_blocks(plan: Plan) -> Mapping[str, Metric]:
    """Times of a machine that works on blocks of 8 channels: they fall in steps."""
    blocks = (
        -(-x.in_channels // 8) * -(-x.out_channels // 8) * x.out_size[0] * x.out_size[1] for x in plan.layers if x.op == "conv"
    )
    return {"latency_ms": Metric(1e-4 * sum(blocks) + 1e-3 * len(plan.layers), "ms", "toy")}


def random_scores(widths: WidthModel, seed=0):
    """Scores whose scale and spread differ from group to group."""
    rng = numpy_rng(seed, "scores")
    return {g.name: np.exp(rng.normal(rng.normal(), rng.uniform(0.2, 1.5), g.width)) for g in widths.groups}


def problem(widths: WidthModel, *budgets, scores=None, **options):
    """A problem with random scores; budgets are texts, percents of the network's own cost."""
    original = widths.cost({})
    limits = tuple(Budget.parse(text).resolve(original) for text in budgets)
    return Problem(widths.groups, scores or random_scores(widths), widths, limits, **options)
