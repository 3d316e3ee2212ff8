"""SynFlow: importance without data, weights as they are at initialization (Tanaka et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.prune.evidence import Evidence
from compress.prune.groups import Group
from compress.prune.slices import called, rows, slices
from nas.cost.evaluation_mode import evaluation_mode
from nas.errors import InvalidSetting


def synflow(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Synaptic saliency |w dR/dw| summed over the unit, R the output of the network of absolute weights for ones.

    The shape of the images is that of `evidence`. Raises InvalidSetting where it has none.
    """
    if evidence.shape is None:
        raise InvalidSetting("importance 'synflow' needs the shape of an image; give Evidence(shape=(C, H, W))")
    saliences = _saliences(module, evidence.shape)
    total = torch.zeros(group.width, dtype=torch.float64)
    for member in group.members:
        for part in slices(module, member):
            total += rows(saliences[part.name], part.dim, member.units).sum(1).cpu()
    # by the whole network's, so that groups compare
    whole = torch.stack([values.sum() for values in saliences.values()]).sum().cpu()
    return (total / whole.clamp(min=torch.finfo(torch.float64).tiny)).float()


def _saliences(module: nn.Module, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """By parameter name, in double precision: products of many layers leave the range of single precision."""
    parameters = {name: p.detach().abs().double().requires_grad_() for name, p in module.named_parameters()}
    # norms pass on what they get, for statistics of absolute weights are not those that were seen
    neutral = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
    buffers = {
        name: neutral[leaf](b).double() if (leaf := name.rpartition(".")[2]) in neutral else b
        for name, b in module.named_buffers()
    }
    device = next(iter(parameters.values())).device
    ones = torch.ones(1, *shape, dtype=torch.float64, device=device)
    with evaluation_mode(module), torch.enable_grad():
        output = called(module, {**parameters, **buffers}, ones).sum()
        slopes = torch.autograd.grad(output, list(parameters.values()), allow_unused=True)
    found = {}
    for (name, p), slope in zip(parameters.items(), slopes, strict=True):
        found[name] = torch.zeros_like(p) if slope is None else (slope * p).abs().detach()
    return found
