"""Weights of a network beside what describes it, and folders whose files appear all at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from nas import weights
from nas.errors import CorruptRun
from nas.files import sync_folder

WEIGHTS = "model.safetensors"
_ASIDE = ".writing-"


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of `module` as safetensors."""
    weights.save(module.state_dict(), path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Read `save_weights` into a module of the same shapes. Raises CorruptRun if any name or shape differs."""
    state = OrderedDict(weights.load(path))
    # some modules read older layouts by their version, and take none for the oldest
    state._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"
        raise CorruptRun(f"weights file {str(path)!r} does not fit the network: {reason}") from error


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Give an empty folder whose files go to `folder` when the block ends, and nowhere if it raises."""
    folder.mkdir(exist_ok=True)  # not what it is in: a run that was deleted is not made again half
    for leftover in folder.glob(f"{_ASIDE}*"):  # of a process that was killed here
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_ASIDE) as name:
        yield Path(name)
        for path in sorted(Path(name).iterdir()):
            _publish(path, folder / path.name)
    sync_folder(folder)


def _publish(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
