"""A module is counted and traced as it is deployed, in evaluation mode, and is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn as nn
from torch import Tensor
from torch.nn.utils import parametrize


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode, and give every submodule its own mode back afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Undo what happens to attributes of `module` and of its parts, and to their lists, dicts and sets; not to tensors."""
    kept = [(vars(part), dict(vars(part))) for part in module.modules()]
    held = [(value, _copied(value)) for _, before in kept for value in before.values() if isinstance(value, list | dict | set)]
    try:
        yield
    finally:
        for attributes, before in kept:
            attributes.clear()
            attributes.update(before)
        for value, content in held:
            if not _same(value, content):  # what refuses to be changed was not
                value.clear()
                (value.extend if isinstance(value, list) else value.update)(content)


@contextmanager
def computed_once(module: nn.Module) -> Iterator[None]:
    """Hold what is computed of parameters alone, such as normalized weights: it is the same for every image."""
    with parametrize.cached():
        for part in module.modules():
            for name in getattr(part, "parametrizations", ()):
                getattr(part, name)
        yield


def fitting(module: nn.Module, images: Tensor) -> Tensor:
    """Images in the number format of the module's weights."""
    return next((images.to(p.dtype) for p in module.parameters() if p.is_floating_point()), images)


def _copied(value: list | dict | set) -> list | dict | set:
    """What it holds, as a plain one."""
    return next(kind(value) for kind in (list, dict, set) if isinstance(value, kind))


def _same(one: list | dict | set, other: list | dict | set) -> bool:
    """Whether two hold the same objects: tensors that are equal are not the same."""
    first, second = ([*x, *x.values()] if isinstance(x, dict) else [*x] for x in (one, other))
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
