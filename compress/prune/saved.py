"""A pruned network on disk: how to build its source, what was cut from it, and its weights. No pickle.

A network that was cut is no instance of its class with other arguments, so it is built again by replaying its history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from compress.prune.history import History
from compress.stored import WEIGHTS, load_weights, save_weights, written_aside
from nas import files
from nas.errors import CorruptRun, InvalidSetting
from nas.records import read_record

SOURCE, HISTORY = "source.json", "history.json"


def save_pruned(folder: Path, module: nn.Module, source: Mapping[str, object], history: History) -> list[Path]:
    """Write source.json, history.json and model.safetensors into `folder`, which is made where it does not exist.

    `source` is plain JSON that says how to build the network before the first cut, such as {"network": "cifar-resnet56",
    "classes": 10}; `history` is all that was taken from it since. Files are written aside and then renamed.
    """
    folder.parent.mkdir(exist_ok=True)
    with written_aside(folder) as aside:
        (aside / SOURCE).write_bytes(files.to_json(dict(source)))
        (aside / HISTORY).write_bytes(files.to_json(history.to_json()))
        save_weights(module, aside / WEIGHTS)
    return [folder / name for name in (SOURCE, HISTORY, WEIGHTS)]


def load_pruned(
    folder: Path,
    build: Callable[[Mapping[str, object]], nn.Module],
    recut: Callable[[nn.Module, History], nn.Module],
) -> nn.Module:
    """Rebuild what `save_pruned` wrote, on the CPU and in evaluation mode.

    `build` makes the source from source.json, `recut` replays the history on it; their errors pass. Raises InvalidSetting if
    `folder` holds no pruned network, CorruptRun if a file of it is missing, spoiled or does not fit the others.
    """
    source, history = read_source(folder), read_history(folder)
    module = recut(build(source), history)
    load_weights(module, folder / WEIGHTS)
    return module.eval()


def read_source(folder: Path) -> dict[str, object]:
    """How to build the network before the first cut. Raises InvalidSetting if there is none, CorruptRun."""
    path = folder / SOURCE
    if not path.is_file():
        raise InvalidSetting(f"{str(folder)!r} holds no pruned network, for it has no {SOURCE}; give a folder that has one")
    return read_record(path)


def read_history(folder: Path) -> History:
    """What was taken from the source. Raises CorruptRun."""
    path = folder / HISTORY
    try:
        return History.from_json(read_record(path, expected="`blocks` and `cuts` of a network"))
    except FileNotFoundError as error:
        raise CorruptRun(f"{str(path)!r} does not exist; restore it, or prune again") from error
