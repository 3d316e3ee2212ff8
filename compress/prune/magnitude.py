"""Importances by the weights alone: scores (width,), higher for what is to be kept (see compress.prune.importance)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from compress.prune.evidence import Evidence
from compress.prune.groups import OUT, Group, Member
from compress.prune.slices import rows, slices
from nas.errors import InvalidSetting

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def l1(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Mean over the layers of the group of the absolute sums of the unit's weights, each by its mean over the units."""
    return _norm(module, group, 1)


def l2(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """The same with Euclidean norms."""
    return _norm(module, group, 2)


def lamp(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Squared magnitude by that of all units not smaller: layer-adaptive, so that groups compare (Lee et al. 2021)."""
    squares = l2(module, group, evidence).square()
    order = squares.argsort(descending=True, stable=True)
    scores = torch.empty_like(squares)
    scores[order] = squares[order] / squares[order].cumsum(0).clamp(min=torch.finfo(squares.dtype).tiny)
    return scores


def bn_scale(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Mean absolute scale of the norms of a unit (Liu et al. 2017). Raises InvalidSetting where there are none."""
    scales = [w.abs().mean(1) for member, w in weights(module, group) if _is_norm(module, member)]
    if not scales:
        raise InvalidSetting(f"importance 'bn-scale' needs norms with a scale, and group {group.name!r} has none; choose l2")
    return torch.stack(scales).mean(0)


def fpgm(module: nn.Module, group: Group, evidence: Evidence) -> Tensor:
    """Sum of the distances to all other filters, which is small near their geometric median (He et al. 2019).

    Filters are the weights that write a unit; each layer counts by its mean over the units.
    """
    filters = [w for member, w in weights(module, group) if member.side == OUT and not _is_norm(module, member)]
    return torch.stack([by_mean(torch.cdist(w, w).sum(1)) for w in filters]).mean(0)


def weights(module: nn.Module, group: Group) -> Iterator[tuple[Member, Tensor]]:
    """The weights of each layer of the group without its bias, in one row a unit, on the CPU."""
    for member in group.members:
        for part in slices(module, member):
            if part.name.endswith(".weight"):
                weight = module.get_parameter(part.name).detach()
                yield member, rows(weight, part.dim, member.units).float().cpu()


def by_mean(scores: Tensor) -> Tensor:
    """Scores by their mean; zeros stay zeros."""
    return scores / scores.mean().clamp(min=torch.finfo(scores.dtype).tiny)


def _norm(module: nn.Module, group: Group, order: int) -> Tensor:
    return torch.stack([by_mean(torch.linalg.vector_norm(w, order, dim=1)) for _, w in weights(module, group)]).mean(0)


def _is_norm(module: nn.Module, member: Member) -> bool:
    # a bare parameter is no module
    return isinstance(dict(module.named_modules()).get(member.layer), NORMS)
