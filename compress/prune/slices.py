"""Which parameters a unit owns: the slices of a group's members, as values, and what the network is without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from compress.prune.groups import IN, Group, Member


@dataclass(frozen=True)
class Slice:
    """Dimension `dim` of the parameter `name` is indexed by the units of a member."""

    name: str
    dim: int


def slices(module: nn.Module, member: Member) -> tuple[Slice, ...]:
    """The parameters of `module` that `member` cuts: weight and bias for output channels, the weight for input channels.

    Buffers, which no training changes, are none.
    """
    owner, _, leaf = member.layer.rpartition(".")
    parent = module.get_submodule(owner)
    if leaf in dict(parent.named_buffers(recurse=False)):
        return ()
    if leaf in dict(parent.named_parameters(recurse=False)):
        return (Slice(member.layer, last_dim(module.get_parameter(member.layer)) if member.dim is None else member.dim),)
    layer = module.get_submodule(member.layer)
    transposed = isinstance(layer, _ConvTransposeNd)
    if member.side == IN:
        return (Slice(f"{member.layer}.weight", 0 if transposed else 1),)
    names = [name for name, _ in layer.named_parameters(recurse=False)]
    return tuple(Slice(f"{member.layer}.{name}", int(transposed and name == "weight")) for name in names)


def last_dim(parameter: Tensor) -> int:
    """The channels of a bare parameter, such as a token or a scale: its last dimension that is wider than one."""
    return max((dim for dim, size in enumerate(parameter.shape) if size > 1), default=parameter.dim() - 1)


def rows(tensor: Tensor, dim: int, units: Sequence[Sequence[int]]) -> Tensor:
    """What each unit owns of `tensor`, in one row a unit: (units, elements)."""
    indices = torch.tensor([i for unit in units for i in unit], device=tensor.device)
    return tensor.index_select(dim, indices).movedim(dim, 0).reshape(len(units), -1)


def silenced(module: nn.Module, cuts: Iterable[tuple[Group, Sequence[int]]]) -> dict[str, Tensor]:
    """Parameters with which nothing reads the given units any more, by name, for `called`.

    The network then computes what it computes once the units are cut, but for norms whose statistics run over channels.
    """
    found: dict[str, Tensor] = {}
    for group, units in cuts:
        for member in readers(group):
            indices = [i for u in units for i in member.units[u]]
            for part in slices(module, member):
                if part.name not in found:
                    found[part.name] = module.get_parameter(part.name).detach().clone()
                found[part.name].index_fill_(
                    part.dim, torch.tensor(indices, dtype=torch.long, device=found[part.name].device), 0.0
                )
    return found


def called(module: nn.Module, tensors: Mapping[str, Tensor], *args: object) -> Any:  # noqa: ANN401 - what the module gives
    """Run `module` with other parameters or buffers, by name; those that are tied to them are replaced, too.

    Not torch.func.functional_call alone: it does not restore modules that are registered under two names.
    """
    known = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}
    new = {id(known[name]): tensor for name, tensor in tensors.items()}
    places: dict[tuple[int, str], str] = {}
    for name, tensor in known.items():
        owner, _, leaf = name.rpartition(".")
        if id(tensor) in new:
            places.setdefault((id(module.get_submodule(owner)), leaf), name)
    replaced = {name: new[id(known[name])] for name in places.values()}
    return torch.func.functional_call(module, replaced, args, tie_weights=False)


def readers(group: Group) -> tuple[Member, ...]:
    """The members that read the units."""
    return tuple(member for member in group.members if member.side == IN)


def assign(module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Set parameters of `module` by name, in place."""
    with torch.no_grad():
        for name, values in parameters.items():
            module.get_parameter(name).copy_(values)
