"""Modules by name: of torchvision, of timm, or of the user's own code."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import torch.nn as nn

from nas.cli.own_code import module_of_own_code
from nas.cli.trust import PREFIX
from nas.errors import InvalidSetting, MissingPackage

NEAR = 3  # names that are suggested


def _torchvision(name: str, classes: int | None) -> nn.Module:
    from torchvision import models  # only where one is named

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown_model("torchvision", name, known)
    return models.get_model(name, weights=None, **_heads(classes))


def _timm(name: str, classes: int | None) -> nn.Module:
    try:
        import timm  # an extra
    except ImportError as error:
        raise MissingPackage(f"timm:{name} needs timm; install it with: pip install 'netcarver[timm]'") from error
    if not timm.is_model(name):
        raise _unknown_model("timm", name, timm.list_models())
    return timm.create_model(name, pretrained=False, **_heads(classes))


MODULES: dict[str, Callable[[str, int | None], nn.Module]] = {
    "torchvision:": _torchvision,
    "timm:": _timm,
    PREFIX: module_of_own_code,
}


def _heads(classes: int | None) -> dict[str, Any]:
    return {} if classes is None else {"num_classes": classes}


def _unknown_model(library: str, name: str, known: list[str]) -> InvalidSetting:
    near = get_close_matches(name, known, n=NEAR) or known[:NEAR]
    return InvalidSetting(f"{library} has no model {name!r}; nearest: {', '.join(near)}")
