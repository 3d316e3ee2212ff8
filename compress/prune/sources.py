"""Weights that a user already has, in safetensors or in a PyTorch state dict, read without running code of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from nas import weights
from nas.errors import CorruptRun, InvalidSetting

WRAPPERS = ("state_dict", "model")  # keys under which training scripts store the state dict, beside epoch and optimizer
PREFIXES = ("module.", "_orig_mod.")  # of torch.nn.DataParallel and torch.compile
NAMED = 3  # mismatches in one message


def load_into(module: nn.Module, path: Path, about_classes: str = "") -> None:
    """Load the weights of `path` into `module`, whose names and shapes they must have, all of them.

    `about_classes` is said where they do not fit. Batch counters of norms may be missing. Raises InvalidSetting, with the first
    mismatches; `module` may then hold some of the weights.
    """
    found = read_weights(path)
    try:
        module.load_state_dict(found, strict=True)
    except RuntimeError as error:
        # compared only now, because modules may know older names of their parameters
        rows = _mismatches(module.state_dict(), found) or [str(error).partition("\n")[0]]
        more = f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        raise InvalidSetting(
            f"weights {str(path)!r} do not fit {type(module).__name__}: {'; '.join(rows[:NAMED])}{more}; "
            f"give the weights of this very network, with as many classes{about_classes}"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by parameter name, on the CPU: the kind of file is told by its content.

    A state dict may be wrapped (see WRAPPERS), and its names may begin with one of PREFIXES. Raises InvalidSetting if
    the file is missing, torn, no such file, or holds Python objects beside tensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InvalidSetting(f"cannot read weights {str(path)!r}: {error.strerror}; give a .safetensors or .pt file") from error
    content = _read_safetensors(path) if start[8:] == b"{" else _read_torch(path)
    return _stripped(_unwrapped(content, path))


# -- the two kinds of files


def _read_safetensors(path: Path) -> object:
    try:
        return weights.load(path)
    except CorruptRun as error:
        raise InvalidSetting(f"{error}; or fetch it again") from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted is None:
            raise _unreadable(path, error) from error
        raise InvalidSetting(
            f"weights {str(path)!r} hold the Python object {wanted[1]}, and reading it could run any code; where you trust "
            "the file, write its tensors alone: torch.save(model.state_dict(), 'weights.pt')"
        ) from error
    except Exception as error:  # a spoiled pickle can raise anything
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidSetting:
    reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return InvalidSetting(
        f"{str(path)!r} is neither a safetensors file nor a state dict of PyTorch ({reason}); "
        "write it again with torch.save(model.state_dict(), 'weights.pt')"
    )


# -- names


def _unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise InvalidSetting(f"weights {str(path)!r} hold {type(content).__name__} and no tensors by name; give a state dict")
    for name, value in content.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise InvalidSetting(
                f"weights {str(path)!r}: {name!r} is {type(value).__name__} and no tensor; "
                f"give a state dict, alone or under {' or '.join(map(repr, WRAPPERS))}"
            )
    return dict(content)


def _stripped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    return tensors


def _mismatches(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """One text a name: other shapes, then what the file lacks, then what the network lacks."""
    shapes = [
        f"{name} is {tuple(t.shape)} in the network and {tuple(found[name].shape)} in the file"
        for name, t in expected.items()
        if name in found and t.shape != found[name].shape
    ]
    missing = [
        f"{name} {tuple(t.shape)} is missing in the file"
        for name, t in expected.items()
        if name not in found and not name.endswith("num_batches_tracked")
    ]
    unknown = sorted((name for name in found if name not in expected), key=_natural)
    return shapes + missing + [f"{name} {tuple(found[name].shape)} is unknown to the network" for name in unknown]


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer2 before layer10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
