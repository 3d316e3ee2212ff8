"""A pruned network on disk: how to build its source, what was cut from it, and its weights. No pickle.

A network that was cut is no instance of its class with other arguments, so it is built again by replaying its history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import nn

from compress.export import WEIGHTS, load_weights, save_weights, written_aside
from compress.prune.groups import Cut
from nas import files
from nas.errors import CorruptRun, InvalidSetting

SOURCE, HISTORY = "source.json", "history.json"


def save_pruned(folder: Path, module: nn.Module, source: Mapping[str, object], cuts: Sequence[Cut]) -> list[Path]:
    """Write source.json, history.json and model.safetensors into `folder`, which is made where it does not exist.

    `source` is plain JSON that says how to build the network before the first cut, such as {"network": "cifar-resnet56",
    "classes": 10}; `cuts` are all cuts since, in order. Files are written aside and then renamed.
    """
    with written_aside(folder) as aside:
        (aside / SOURCE).write_bytes(files.to_json(dict(source)))
        (aside / HISTORY).write_bytes(files.to_json([cut.to_json() for cut in cuts]))
        save_weights(module, aside / WEIGHTS)
    return [folder / name for name in (SOURCE, HISTORY, WEIGHTS)]


def load_pruned(
    folder: Path,
    build: Callable[[Mapping[str, object]], nn.Module],
    recut: Callable[[nn.Module, Sequence[Cut]], nn.Module],
) -> nn.Module:
    """Rebuild what `save_pruned` wrote, on the CPU and in evaluation mode.

    `build` makes the source from source.json, `recut` replays the cuts on it; their errors pass. Raises InvalidSetting if
    `folder` holds no pruned network, CorruptRun if a file of it is missing, spoiled or does not fit the others.
    """
    source, cuts = read_source(folder), read_history(folder)
    module = recut(build(source), cuts)
    load_weights(module, folder / WEIGHTS)
    return module.eval()


def read_source(folder: Path) -> dict[str, object]:
    """How to build the network before the first cut. Raises InvalidSetting if there is none, CorruptRun."""
    path = folder / SOURCE
    if not path.is_file():
        raise InvalidSetting(f"{str(folder)!r} holds no pruned network, for it has no {SOURCE}; give a folder that has one")
    content = _json(path)
    if not isinstance(content, dict):
        raise CorruptRun(f"{str(path)!r} is {type(content).__name__} and no JSON object; restore it")
    return content


def read_history(folder: Path) -> tuple[Cut, ...]:
    """All cuts, in order. Raises CorruptRun."""
    path = folder / HISTORY
    content = _json(path)
    if not isinstance(content, list):
        raise CorruptRun(f"{str(path)!r} is {type(content).__name__} and no list of cuts; restore it")
    for number, row in enumerate(content, 1):
        if not _is_cut(row):
            raise CorruptRun(f"{str(path)!r}, cut {number} is {str(row)[:60]} and not a `group` with its `units`; restore it")
    return tuple(Cut.from_json(row) for row in content)


def _is_cut(row: object) -> bool:
    if not (isinstance(row, dict) and isinstance(row.get("group"), str) and isinstance(row.get("units"), list)):
        return False
    return all(type(unit) is int and unit >= 0 for unit in row["units"])


def _json(path: Path) -> object:
    try:
        return files.from_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CorruptRun(f"{str(path)!r} does not exist; restore it, or prune again") from error
    except ValueError as error:
        raise CorruptRun(f"{str(path)!r} is not JSON ({error}); restore it, or prune again") from error
