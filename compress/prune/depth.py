"""Whole residual blocks: which a network can do without, and the network without some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compress.prune.attention import prepare
from compress.prune.slices import called
from nas.cost.evaluation_mode import evaluation_mode
from nas.errors import InvalidSetting

NAMED = 5  # blocks in one message


@torch.no_grad()
def residual_blocks(module: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Names of the smallest parts of `module` that add something to their input, in order of execution.

    Such a part takes one tensor and gives one of its shape, and gives its very input once all its parameters are zero: then
    nn.Identity can stand in its place. `example` (N, C, H, W) is run in evaluation mode. Raises InvalidSetting if it cannot.
    """
    network = prepare(module).eval()
    found = [name for name, images in _calls(network, example).items() if _adds(network.get_submodule(name), images)]
    return tuple(name for name in found if not any(other.startswith(f"{name}.") for other in found))


def without(module: nn.Module, blocks: Sequence[str]) -> nn.Module:
    """A copy of `module`, prepared (see compress.prune.attention), with nn.Identity for each of `blocks`.

    Raises InvalidSetting for a block that does not exist.
    """
    network = prepare(module)
    known = {name for name, _ in network.named_modules()} - {""}
    for name in blocks:
        if name not in known:
            raise InvalidSetting(f"there is no block {name!r} to remove; parts are {', '.join(sorted(known)[:NAMED])}, ...")
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, nn.Identity())
    return network


def _calls(network: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """The inputs of parts with parameters that are run once, with one tensor, and give one of its shape."""
    inputs: dict[str, Tensor] = {}
    runs: Counter[str] = Counter()

    def before(name: str) -> Callable[[nn.Module, tuple, dict], None]:
        def note(part: nn.Module, args: tuple, kwargs: dict) -> None:
            runs[name] += 1
            if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
                inputs[name] = args[0].clone()  # a part may change its input in place

        return note

    def after(name: str) -> Callable[[nn.Module, tuple, object], None]:
        def note(part: nn.Module, args: tuple, output: object) -> None:
            if runs[name] > 1 or not isinstance(output, Tensor) or name not in inputs or output.shape != inputs[name].shape:
                inputs.pop(name, None)

        return note

    parts = [(name, part) for name, part in network.named_modules() if name and any(True for _ in part.parameters())]
    hooks = [part.register_forward_pre_hook(before(name), with_kwargs=True) for name, part in parts]
    hooks += [part.register_forward_hook(after(name)) for name, part in parts]
    try:
        with evaluation_mode(network):
            network(example)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidSetting(f"{type(network).__name__} cannot be run on {tuple(example.shape)}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return inputs


def _adds(part: nn.Module, images: Tensor) -> bool:
    silent = {name: torch.zeros_like(p) for name, p in part.named_parameters()}
    return torch.equal(called(part, silent, images.clone()), images)
