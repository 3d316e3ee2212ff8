"""Features inside networks: what parts of a module give, and a loss that draws a student's towards its teacher's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.training.loop import Objective

TOKENS = 3  # dimensions of (N, L, C)


@dataclass(frozen=True)
class Place:
    """A part whose output is compared, and the channels of the teacher's output that the student kept, None for all.

    Channels are dimension 1 of maps (N, C, H, W) and of features (N, C), and the last dimension of tokens (N, L, C).
    """

    part: str
    kept: tuple[int, ...] | None = None


@contextmanager
def noting(module: nn.Module, parts: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of parts by name, in order of execution: those of the last run."""
    seen: dict[str, Tensor] = {}

    def noting_as(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda part, inputs, output: seen.update({name: output})

    hooks = [module.get_submodule(name).register_forward_hook(noting_as(name)) for name in parts]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def matched(
    plain: Objective, student: nn.Module, teacher: nn.Module, places: Sequence[Place], weight: float
) -> Iterator[Objective]:
    """`plain`, which runs both networks, and `weight` times the distance of the student's features to the teacher's.

    The distance is the squared error by the squared norm of the teacher's features, its mean over `places` (after FitNets,
    Romero et al. 2015, without regressors: the channels of the student are channels of the teacher). Without places, `plain`.
    """
    parts = [place.part for place in places]
    with noting(student, parts) as mine, noting(teacher, parts) as theirs:

        def losses(images: Tensor, targets: Tensor, step: int) -> Iterator[Tensor]:
            for loss in plain(images, targets, step):
                yield loss + weight * distance(mine, theirs, places)

        yield losses if places else plain


def distance(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], places: Sequence[Place]) -> Tensor:
    """Mean over places of the squared distance of features by the squared norm of `theirs`."""
    ratios = []
    for place in places:
        given, wanted = mine[place.part].float(), kept_of(theirs[place.part], place).float().detach()
        ratios.append(relative(given, wanted))
    return torch.stack(ratios).mean()


def relative(given: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of two tensors of one shape by the squared norm of the second."""
    return (given - wanted).square().sum() / wanted.square().sum().clamp(min=torch.finfo(wanted.dtype).tiny)


def kept_of(output: Tensor, place: Place) -> Tensor:
    """The channels of the teacher's output that the student kept."""
    if place.kept is None:
        return output
    return output.index_select(channels_dim(output), torch.tensor(place.kept, device=output.device))


def channels_dim(output: Tensor) -> int:
    """Which dimension the channels are."""
    return -1 if output.ndim == TOKENS else 1
