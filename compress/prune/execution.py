"""Running a module that we did not write: in which order its layers run, and what it may raise."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from nas.errors import InvalidSetting

# what a module raises that cannot be run, traced or cut
FAILURES = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError, ArithmeticError)


def reason(error: BaseException) -> str:
    """The first line of what an error says, for a message of our own."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


class Order:
    """When each layer of a network first runs."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        """Run `network` once, without gradients. Raises InvalidSetting if it cannot be run."""
        self.places: dict[str, int] = {"": 0}
        hooks = [part.register_forward_pre_hook(partial(self._note, name)) for name, part in network.named_modules() if name]
        try:
            with torch.no_grad():
                network(example)
        except FAILURES as error:
            raise InvalidSetting(
                f"{type(network).__name__} cannot be run on an input of shape {tuple(example.shape)} ({reason(error)}); "
                "check the shape"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, name: str, *_: object) -> None:
        self.places.setdefault(name, len(self.places))

    def of(self, name: str) -> int:
        """The place of a layer, or of what holds it where it is not run by itself, as a parameter is not."""
        while name not in self.places:
            name = name.rpartition(".")[0]
        return self.places[name]
