"""A module is counted and traced as it is deployed, in evaluation mode, and is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.nn as nn


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
    kept = [(vars(part), _shallow(vars(part))) for part in module.modules()]
    try:
        yield
    finally:
        for attributes, before in kept:
            for name, (value, content) in before.items():
                if content is not None:
                    value.clear()
                    (value.extend if isinstance(value, list) else value.update)(content)
                attributes[name] = value
            for name in set(attributes) - set(before):
                del attributes[name]


def _shallow(attributes: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Each value, and what a list, a dict or a set holds."""
    return {n: (value, copy.copy(value) if isinstance(value, list | dict | set) else None) for n, value in attributes.items()}
