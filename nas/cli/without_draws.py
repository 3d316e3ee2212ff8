"""Modules made for their shapes alone draw no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS = frozenset((Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_, Tensor.random_, Tensor.exponential_))


class WithoutDraws(TorchFunctionMode):
    """Random numbers in place are not drawn on the device `meta`, which holds none: torch loads its compiler for them."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the function gives
        """Call `func`, or give the tensor back as it is."""
        if func in _DRAWS and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))
