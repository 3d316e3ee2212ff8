"""torch-pruning's own MetaPruner with its defaults, as the benchmarks' baseline: its ratio is searched for a cost."""

from __future__ import annotations

import copy

import torch
import torch_pruning as tp
from torch import Tensor, nn

from nas.cost.counting import count
from nas.cost.trace import trace

RATIOS = tuple(i / 100 for i in range(2, 90, 2))


def macs_of(module: nn.Module, example: Tensor) -> float:
    return count(trace(module.eval(), example[:1])).values()["macs"]


def meta_pruned(module: nn.Module, example: Tensor, share: float, ignored: tuple[str, ...] = ()) -> nn.Module:
    """A copy cut by MetaPruner to at most `share` of the multiply-adds, by the smallest uniform ratio that does it.

    Importance is its group L2 norm, widths are as its defaults leave them; the classifier and the layers `ignored` stay.
    """
    whole, found = macs_of(module, example), None
    low, high = 0, len(RATIOS) - 1
    while low <= high:
        middle = (low + high) // 2
        candidate = _cut(module, example, RATIOS[middle], ignored)
        if macs_of(candidate, example) <= share * whole:
            found, high = candidate, middle - 1
        else:
            low = middle + 1
    if found is None:
        raise SystemExit(f"MetaPruner reaches {share:.0%} at no ratio up to {RATIOS[-1]}")
    return found.eval()


def _cut(module: nn.Module, example: Tensor, ratio: float, ignored: tuple[str, ...]) -> nn.Module:
    network = copy.deepcopy(module).eval()
    parts = dict(network.named_modules())
    classifier = [part for part in parts.values() if isinstance(part, nn.Linear)][-1]
    pruner = tp.pruner.MetaPruner(
        network,
        example[:1],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[classifier, *(parts[name] for name in ignored)],
        # fresh ones: the defaults are shared between instances
        in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
    )  # fmt: skip
    with torch.enable_grad():
        pruner.step()
    return network
