"""Mixed precision: the number format of each layer, so that the network keeps budgets on size and bit operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
from torch import Tensor

from compress.allocate import cheapest
from compress.quantize.formats import FLOAT, FORMATS, INT8, runs_in_int8
from compress.quantize.graph import Layer, Network
from compress.quantize.ptq import judge_of
from compress.quantize.ranges import CALIBRATIONS, histograms
from compress.quantize.scheme import Scheme
from compress.quantize.sensitivity import SENSITIVITIES, Losses
from compress.quantize.simulate import simulated
from nas.budget import Budget, Cost, Metric, excess, format_value
from nas.errors import InfeasibleBudget, InvalidBudget, InvalidSetting, not_known

ROUNDS = 12
EMPHASES = (0.0, 0.25, 0.5, 0.75, 1.0)
BITS_BUDGETS = ("size_bytes", "bitops")


@dataclass(frozen=True)
class MixConfig:
    """Which formats weights and inputs may have, and how the cost in accuracy is told; layers of `kept` have the given one."""

    weights: tuple[str, ...] = ("2", "3", "4", "6", "8")
    inputs: tuple[str, ...] = (INT8,)
    sensitivity: str = "ablation"
    kept: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names. Raises InvalidSetting."""
        if self.sensitivity not in SENSITIVITIES:
            raise InvalidSetting(f"--sensitivity {not_known(self.sensitivity, SENSITIVITIES)}")
        for option, names in (("--bits", self.weights), ("--activation-bits", self.inputs)):
            if unknown := [name for name in names if name not in FORMATS]:
                raise InvalidSetting(f"{option} {unknown[0]!r} is not a number format; choose of {', '.join(FORMATS)}")

    def options(self, network: Network) -> list[list[tuple[str, str]]]:
        """What formats of weights and inputs each layer may have."""
        free = list(product(self.weights, self.inputs))
        return [[(self.kept[x.name],) * 2] if x.name in self.kept else free for x in network.layers]


@dataclass(frozen=True)
class Mixed:
    """A scheme, and what it is told to cost in accuracy, by layer."""

    scheme: Scheme
    losses: Losses


def mixed(network: Network, budgets: Sequence[Budget], original: Cost, batches: Sequence[Tensor], config: MixConfig) -> Mixed:
    """Choose formats whose losses sum up to the least under `budgets` on stored weights (MB) and bit operations (BitOps).

    The dynamic program is the one of pruning's widths. `original` is the cost of the network in fp32. Raises InvalidBudget for
    budgets that bits do not change, InfeasibleBudget with the least that is possible.
    """
    if not budgets:
        raise InvalidBudget("bits are chosen under a budget; give one on stored weights or bit operations: 2MB, 5GBitOps")
    for budget in budgets:
        if budget.metric not in BITS_BUDGETS:
            raise InvalidBudget(f"budget {budget.text!r} does not depend on bits; give stored weights (2MB) or 5GBitOps")
    of_weights = SENSITIVITIES[config.sensitivity](network, config.weights, batches)
    of_inputs = _input_losses(network, config.inputs, batches)
    options = config.options(network)
    losses = [
        np.zeros(1) if x.name in config.kept else np.array([of_weights[x.name][w] + of_inputs[x.name][a] for w, a in pairs])
        for x, pairs in zip(network.layers, options, strict=True)
    ]

    def scheme(chosen: Sequence[int]) -> Scheme:
        return _scheme(network, [pairs[place] for pairs, place in zip(options, chosen, strict=True)], config)

    def over(chosen: Sequence[int]) -> float:
        return excess(budgets, cost_of(network, scheme(chosen), original))

    choices = []
    for emphasis in _emphases(len(budgets)):
        shares = [_shares(x, pairs, budgets, emphasis) for x, pairs in zip(network.layers, options, strict=True)]
        choices.append(_choice(list(zip(shares, losses, strict=True)), over))
    kept = [chosen for chosen in choices if chosen is not None]
    if not kept:
        raise _infeasible(network, budgets, original, config)
    best = min(kept, key=lambda chosen: sum(float(loss[place]) for loss, place in zip(losses, chosen, strict=True)))
    return Mixed(scheme(best), of_weights)


def _choice(tables: Sequence[tuple[np.ndarray, np.ndarray]], over: Callable[[Sequence[int]], float]) -> list[int] | None:
    """An option of each table of (shares, losses), by which nothing is over its budget; None where there is none."""
    limit = 1.0
    for _ in range(ROUNDS):
        chosen = cheapest(tables, limit)
        too_much = over(chosen)
        if too_much == 0:
            return chosen
        limit *= 1 - min(0.5, max(too_much, 1e-3))  # what layers share is not in the sums
    return None


def cost_of(network: Network, scheme: Scheme, original: Cost) -> Cost:
    """What a network costs by `scheme`: stored weights, scales and biases in their formats, and bit operations.

    Products of activations, as in attention, count with the format of the others.
    """
    size = sum(stored_bytes(layer, scheme.weights[layer.name]) for layer in network.layers)
    rest = original.values()["macs"] - sum(layer.macs for layer in network.layers)
    bitops = rest * FORMATS[scheme.others].bits ** 2 + sum(
        layer.macs * FORMATS[scheme.weights[layer.name]].bits * FORMATS[scheme.of_point(network, layer.source)].bits
        for layer in network.layers
    )
    stored = Metric(size, "B", "simulated", context="weights packed in their formats, with their scales and biases")
    metrics = {**original.metrics, "size_bytes": stored, "bitops": Metric(bitops, "bit operations", "plan")}
    if (peak := original.metrics.get("peak_bytes")) is not None:
        widest = max((FORMATS[scheme.of_point(network, point)].bits for point in network.points), default=32)
        bound = f"with all activations in {widest} bits, the widest of them"
        metrics["peak_bytes"] = replace(peak, value=peak.value * widest / 32, context=bound)
    return replace(original, metrics=metrics)


def delivered_cost(network: Network, scheme: Scheme, file: Path, original: Cost, packed: bool = False) -> Cost:
    """What a quantized network costs as it is handed over: its size is that of `file`, if that packs weights as they are.

    `packed` tells that bits were chosen under a budget on packed weights: by that they are judged, whatever they are.
    """
    cost = cost_of(network, scheme, original)
    if packed or not is_real(scheme) or min(FORMATS[name].bits for name in scheme.weights.values()) < FORMATS[INT8].bits:
        return cost
    size = Metric(file.stat().st_size, "B", f"size of {file.name}")
    return replace(cost, metrics={**cost.metrics, "size_bytes": size})


def is_real(scheme: Scheme) -> bool:
    """Whether integer kernels of 8 bits run all of it; else it is simulated in floating point."""
    names = {*scheme.weights.values(), *scheme.inputs.values(), scheme.others}
    return all(name == FLOAT or runs_in_int8(name) for name in names)


def stored_bytes(layer: Layer, name: str) -> float:
    """Weights in their format, and for each channel a bias, and a scale where the weights are rounded, in 32 bits."""
    bits = FORMATS[name].bits
    return layer.params * bits / 8 + layer.channels * (4 if name == FLOAT else 8)


def _emphases(budgets: int) -> list[tuple[float, ...]]:
    """How much each budget counts, where the allocator knows one limit: of two, the one that binds is not known before."""
    return [(1.0,)] if budgets == 1 else [(share, 1 - share) for share in EMPHASES]


def _shares(
    layer: Layer, options: Sequence[tuple[str, str]], budgets: Sequence[Budget], emphasis: Sequence[float]
) -> np.ndarray:
    """What part of the budgets a layer takes by each option, each counted with its emphasis."""
    costs: Mapping[str, Callable[[str, str], float]] = {
        "size_bytes": lambda w, a: stored_bytes(layer, w),
        "bitops": lambda w, a: layer.macs * FORMATS[w].bits * FORMATS[a].bits,
    }
    parts = [[costs[b.metric](w, a) / b.limit for b in budgets] for w, a in options]
    return np.array(parts) @ np.array(emphasis)


def _scheme(network: Network, chosen: Sequence[tuple[str, str]], config: MixConfig) -> Scheme:
    names = [layer.name for layer in network.layers]
    free = [a for name, (_, a) in zip(names, chosen, strict=True) if name not in config.kept]
    widest = max(free or config.inputs, key=lambda name: FORMATS[name].bits)
    weights, inputs = ({n: pair[i] for n, pair in zip(names, chosen, strict=True)} for i in (0, 1))
    return Scheme(weights, inputs, widest)


def _input_losses(network: Network, formats: Sequence[str], batches: Sequence[Tensor]) -> Losses:
    """Divergence of the output when what this layer reads is rounded, and nothing else; 0 where there is no choice.

    Layers that read the same share it.
    """
    names = [layer.name for layer in network.layers]
    if len(formats) == 1:
        return {name: {formats[0]: 0.0} for name in names}
    judge, seen = judge_of(network, batches), histograms(network, batches)
    floats = {name: FLOAT for name in names}
    found: dict[str, dict[str, float]] = {}
    for layer in network.layers:
        found[layer.name] = {}
        readers = [other.name for other in network.layers if other.source == layer.source]
        for name in formats:
            levels = 1 << min(16, FORMATS[name].bits)
            ranges = {point: CALIBRATIONS["mse"](seen[point], levels) for point in [layer.source]}
            module = simulated(network, Scheme(floats, {**floats, **dict.fromkeys(readers, name)}, FLOAT), ranges)
            found[layer.name][name] = judge.error(module) / len(readers)
    return found


def _infeasible(network: Network, budgets: Sequence[Budget], original: Cost, config: MixConfig) -> InfeasibleBudget:
    fewest = [min(pairs, key=lambda pair: sum(FORMATS[name].bits for name in pair)) for pairs in config.options(network)]
    cost = cost_of(network, _scheme(network, fewest, config), original).values()
    texts = ", ".join(f"{budget.text!r}" for budget in budgets)
    smallest = ", ".join(format_value(metric, cost[metric]) for metric in BITS_BUDGETS)
    return InfeasibleBudget(
        f"no choice of bits keeps {texts}: with the fewest that --bits, --activation-bits and --keep allow, the network has "
        f"{smallest}"
    )
