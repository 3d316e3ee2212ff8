"""How much a network needs each unit of a group: one plain function a method, all of them in IMPORTANCES.

A function takes a network (as compress.prune.attention.prepare leaves it), one of its groups and Evidence, and gives scores
(width,) on the CPU, higher for what is to be kept. It changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from compress.prune.downstream import ablation, optin
from compress.prune.evidence import Evidence
from compress.prune.groups import Group, Member
from compress.prune.magnitude import bn_scale, by_mean, fpgm, l1, l2, lamp
from compress.prune.nni_pruners import nni_fpgm, nni_l1, nni_l2
from compress.prune.slices import readers, rows, slices
from compress.prune.synflow import synflow
from nas.cost.evaluation_mode import evaluation_mode
from nas.errors import InvalidSetting, not_known
from nas.torch_seeding import generator

Importance = Callable[[nn.Module, Group, Evidence], Tensor]


def score(name: str, module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Scores (width,) of one method of IMPORTANCES, all finite.

    Raises InvalidSetting for a method that is not known, that lacks what it needs, or whose scores are no numbers.
    """
    if name not in IMPORTANCES:
        raise InvalidSetting(f"importance {not_known(name, IMPORTANCES)}")
    if name in CALIBRATED and not evidence.batches:
        raise InvalidSetting(f"importance {name!r} needs calibration data; give some, or choose l2")
    scores = IMPORTANCES[name](module, group, evidence)
    assert scores.shape == (group.width,), scores.shape
    if not scores.isfinite().all():
        raise InvalidSetting(f"importance {name!r} is not finite on group {group.name!r}; check the weights, or choose random")
    return scores


def random(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Uniform in 0..1: the baseline that any other method must beat."""
    return torch.rand(group.width, generator=generator(evidence.seed, "importance", group.name))


# -- by gradients


def taylor(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Squared change of the loss to first order: (g w)^2 summed over the unit's parameters (Molchanov et al. 2019)."""
    return _weighted_squares(module, group, {name: slope.square() for name, slope in evidence.gradients.items()})


def hessian(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Change of the loss to second order: h w^2 / 2 summed, with the diagonal h of the Hessian (LeCun et al. 1989)."""
    return _weighted_squares(module, group, evidence.curvatures) / 2


def _weighted_squares(module: nn.Module, group: Group, factors: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros(group.width)
    for member in group.members:
        for part in slices(module, member):
            values = module.get_parameter(part.name).detach().square() * factors[part.name]
            total += rows(values, part.dim, member.units).sum(1).float().cpu()
    return total


# -- by outputs


@torch.no_grad()
def activation(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """How much the unit moves what its readers compute: the variance of its values times the squared weights that read it.

    What a unit adds on average, norms and biases can take over (fluctuation, An et al. 2024). Each reader counts by its mean
    over the units. Raises InvalidSetting if no reader is run by itself, because another module takes its weights.
    """
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = defaultdict(int)

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            channels = -1 if isinstance(layer, nn.Linear) else 1
            values = inputs[0].detach().movedim(channels, 0).flatten(1).double()
            sums = torch.stack([values.mean(1), values.square().mean(1)]) * len(inputs[0])
            totals[name] = totals.get(name, 0) + sums.cpu()
            counts[name] += len(inputs[0])  # more than images where a layer is run several times, or on windows of them

        return add

    hooks = [module.get_submodule(m.layer).register_forward_pre_hook(note(m.layer)) for m in readers(group)]
    try:
        with evaluation_mode(module):
            for images, _ in evidence.batches:
                module(images)
    finally:
        for hook in hooks:
            hook.remove()
    read = [_moved(module, m, totals[m.layer] / counts[m.layer]) for m in readers(group) if m.layer in totals]
    if not read:
        raise InvalidSetting(f"importance 'activation' sees no layer that reads group {group.name!r} run; choose taylor")
    return torch.stack(read).mean(0)


def _moved(module: nn.Module, member: Member, means: Tensor) -> Tensor:
    """Variances of channels times squared weights, summed over each unit; `means` of values and of their squares (2, C)."""
    part = slices(module, member)[0]
    weight = module.get_parameter(part.name).detach().double().cpu().movedim(part.dim, 0).flatten(1)
    moved = (means[1] - means[0].square()).clamp(min=0) * weight.square().sum(1)
    return by_mean(rows(moved.float(), 0, member.units).sum(1))


IMPORTANCES: dict[str, Importance] = {
    "l1": l1,
    "l2": l2,
    "lamp": lamp,
    "bn-scale": bn_scale,
    "fpgm": fpgm,
    "taylor": taylor,
    "hessian": hessian,
    "activation": activation,
    "ablation": ablation,
    "optin": optin,
    "synflow": synflow,
    "nni-l1": nni_l1,
    "nni-l2": nni_l2,
    "nni-fpgm": nni_fpgm,
    "random": random,
}
# those that need Evidence with gradients, as compress.prune.evidence.gather gives it, and all that need batches
DIFFERENTIATED = frozenset({"taylor", "hessian"})
CALIBRATED = frozenset({"taylor", "hessian", "activation", "ablation", "optin"})
