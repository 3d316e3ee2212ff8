"""The one place where torchvision is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Takes the place of a module that is slow to import, and fetches what is asked of it from that one, when it is asked."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self), name)


class _Compiler(_StandIn):
    def is_compile_supported(self, device_type: str) -> bool:
        """Whether torch.compile works there."""
        return bool(_real(self).is_compile_supported(device_type))


def models() -> ModuleType:
    """torchvision.models, without torch's compiler.

    Loading that takes longer than torchvision itself, which wants it for one question that is asked when a detector runs.
    """
    with _without_compiler():
        from torchvision import models as found
    return found


@contextmanager
def _without_compiler() -> Iterator[None]:
    if _COMPILER in sys.modules or "torchvision" in sys.modules:
        yield
        return
    stand_in = _Compiler(_COMPILER)
    sys.modules[_COMPILER] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]


def _real(stand_in: ModuleType) -> ModuleType:
    if sys.modules.get(_COMPILER) is stand_in:
        del sys.modules[_COMPILER]
    return import_module(_COMPILER)
