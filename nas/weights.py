"""Tensors as safetensors bytes and files: weights and checkpoints, with no pickle anywhere.

The format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from nas.errors import CorruptRun
from nas.files import read_regular


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Serialize named tensors of any device, shape and type; tensors that share memory are stored one by one."""
    return safetensors.torch.save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """Read what `to_bytes` wrote, onto the CPU. Raises CorruptRun if `data` is cut off or no safetensors data."""
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CorruptRun(f"{len(data)} bytes are not safetensors data ({error}); write the file again") from error


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors to `path`, over what is there."""
    path.write_bytes(to_bytes(tensors))


def load(path: Path) -> dict[str, Tensor]:
    """Read what `save` wrote, onto the CPU. Raises CorruptRun if the file is missing, cut off or of another format."""
    try:
        return from_bytes(read_regular(path))
    except FileNotFoundError as error:
        raise CorruptRun(f"weights file {str(path)!r} does not exist; write it again") from error
    except CorruptRun as error:
        raise CorruptRun(f"weights file {str(path)!r}: {error}") from error
