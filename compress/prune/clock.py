"""How long a network takes at other widths, learned from timings of the network itself at some widths.

Kernels work on blocks of channels, and what is wide at small resolution takes other time than what is narrow at a large one.
So the time is taken to be a sum over kinds of layers (operation, kernel, stride, resolution) of multiply-adds in whole blocks
and of values that are written, with prices that are fitted to timings (non-negative least squares). The block size is the one
that explains the timings best: the width-against-time curve of a group then falls in its steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from compress.prune.problem import Keep, Problem
from compress.prune.widths import WidthModel
from nas.budget import Metric
from nas.cost.counting import count
from nas.plan import Layer, Plan
from nas.seeding import numpy_rng

LATENCY = "latency_ms"
BLOCKS = (1, 4, 8, 16, 32)
# networks that are timed to fit the prices: at one width throughout, each kind of group alone, and drawn at random
LEVELS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.0)
DRAWN = 10
# a smaller block explains timings about as well by chance
MARGIN = 0.95
Timer = Callable[[Mapping[str, Plan]], Mapping[str, float]]


@dataclass(frozen=True)
class TimeModel:
    """Prices in ms by feature, for channels in blocks of `block`; `error` is the mean relative one on its own timings."""

    block: int
    prices: Mapping[str, float]
    error: float
    networks: int

    def __call__(self, plan: Plan) -> dict[str, Metric]:
        """The time of a plan as a metric."""
        ms = sum(self.prices.get(name, 0.0) * value for name, value in features(plan, self.block).items())
        context = f"fitted to {self.networks} timings of the network at other widths, {self.error:.1%} off on average"
        return {LATENCY: Metric(ms, "ms", "time model", self.error * ms, context)}


def features(plan: Plan, block: int) -> dict[str, float]:
    """What time is spent on: blocked multiply-adds and values written by kind of layer, and the number of layers."""
    found: dict[str, float] = defaultdict(float)
    for layer in plan.layers:
        size = "x".join(map(str, layer.out_size))
        if layer.op in ("conv", "linear"):
            depthwise = layer.groups == layer.in_channels > 1
            kind = f"{'depthwise' if depthwise else layer.op} {layer.kernel} {layer.stride} {size}"
            found[f"{kind} macs"] += _blocked(layer, block)
        found[f"{size} values"] += _up(layer.out_channels, block) * prod(layer.out_size)
        found["layers"] += 1
    return dict(found)


def probes(widths: WidthModel, round_to: int, least: float, seed: int, exact: bool = False) -> dict[str, Plan]:
    """Plans of the network at some widths, by a name that tells which."""
    problem = Problem(widths.groups, {g.name: np.ones(g.width) for g in widths.groups}, widths, (), round_to, least, exact)
    keeps: dict[str, Keep] = {"whole": problem.whole}
    for level in LEVELS:
        keeps[f"all {level}"] = {g.name: problem.nearest(g.name, level * g.width) for g in widths.groups}
    for number, alike in enumerate(_kinds(widths)):
        for level in (0.5, 0.0):
            narrow = {name: problem.nearest(name, level * problem.whole[name]) for name in alike}
            keeps[f"kind {number} {level}"] = {**problem.whole, **narrow}
    rng = numpy_rng(seed, "probes")
    for number in range(DRAWN):
        level = rng.uniform(0, 1)
        drawn = {name: level + rng.uniform(-0.3, 0.3) for name in problem.options}
        keeps[f"drawn {number}"] = {n: problem.nearest(n, share * problem.whole[n]) for n, share in drawn.items()}
    return {name: widths.plan_with(keep) for name, keep in keeps.items()}


def fit(plans: Sequence[Plan], times: Sequence[float], weights: Sequence[float] | None = None) -> TimeModel:
    """Fit prices to `times` in ms of `plans`, relative errors counting, with `weights` of the timings."""
    from scipy.optimize import nnls  # slow to import, and most runs time nothing

    assert len(plans) == len(times) > 0
    ms, scale = np.asarray(times), np.sqrt(np.ones(len(times)) if weights is None else np.asarray(weights))
    found: list[TimeModel] = []
    for block in BLOCKS:
        rows = [features(plan, block) for plan in plans]
        names = sorted({name for row in rows for name in row})
        table = np.array([[row.get(name, 0.0) for name in names] for row in rows])
        units = table.max(axis=0)
        prices = nnls(table / units / ms[:, None] * scale[:, None], scale)[0] / units
        error = float(np.mean(np.abs(table @ prices / ms - 1)))
        found.append(TimeModel(block, dict(zip(names, prices.tolist(), strict=True)), error, len(plans)))
    best = min(model.error for model in found)
    return next(model for model in found if model.error * MARGIN <= best)


def proportional(whole: Plan, ms: float) -> Callable[[Plan], dict[str, Metric]]:
    """The least that is known of a network that cannot be timed at other widths: time that follows its multiply-adds."""
    macs = count(whole, ["macs"]).metrics["macs"].value

    def time(plan: Plan) -> dict[str, Metric]:
        share = count(plan, ["macs"]).metrics["macs"].value / macs
        return {LATENCY: Metric(ms * share, "ms", "multiply-adds", context="in proportion to the original's")}

    return time


def _kinds(widths: WidthModel) -> list[list[str]]:
    """Names of groups that cut layers of the same shapes: they take the same time."""
    kinds: dict[object, list[str]] = defaultdict(list)
    for group in widths.groups:
        shape = tuple((x.op, x.kernel, x.stride, x.in_channels, x.out_channels, x.out_size) for x, _ in widths.layers_of(group))
        kinds[shape if len(shape) <= 4 else group.name].append(group.name)
    return list(kinds.values())


def _blocked(layer: Layer, block: int) -> float:
    outs = _up(layer.out_channels, block)
    ins = 1 if layer.groups == layer.in_channels > 1 else _up(layer.in_channels, block) / layer.groups
    return float(ins * outs * prod(layer.kernel) * prod(layer.out_size))


def _up(channels: int, block: int) -> int:
    return ceil(channels / block) * block
