"""Weights that a user already has: the state dict of a file that fits a network, whatever a training script put around it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path

from torch import Tensor, nn

from compress.prune.checkpoints import REWRITE, Array, StandIn, read_content
from nas.errors import InvalidSetting

# keys under which training scripts store the weights; the first that is there is taken. Averaged weights come first: they are
# those whose accuracy such trainings report
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "model_ema_state_dict",
    "ema_state_dict",
    "params_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
)
# of torch.nn.DataParallel and torch.compile, which no network has of itself
PREFIXES = ("module.", "_orig_mod.")
# keys beside the weights, whose tensors are none of a network
_BESIDE = re.compile(r"optim|sched|scaler|amp|rng|criterion|loss|args|hyper|config|metric|meter|log|history", re.IGNORECASE)
# names that a file may have and a network need not: heads of the training alone, counters, buffers that constructors compute
_AUXILIARY = re.compile(r"aux\d*|aux_?(logits|head|classifier|net)\w*|auxiliary\w*", re.IGNORECASE)
_COUNTERS = frozenset(
    "num_batches_tracked n_averaged num_updates decay total_ops total_params epoch step steps iteration global_step "
    "relative_position_index relative_coords_table attn_mask position_ids".split()
)
NESTED = 8  # mappings in mappings
DEEPEST = 4  # parts of a name
FEW = 8  # parts of names that are tried at each level
NAMED = 3  # names in one message


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, `key` where in the file they are, and the names of other values among them."""

    key: str
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _View:
    """The tensors of a state dict under the names that a network may know them by."""

    source: StateDict
    tensors: Mapping[str, Tensor]
    without: str = ""  # begins the names that were taken, and was taken away
    added: str = ""


def load_into(module: nn.Module, path: Path, about_classes: str = "") -> list[str]:
    """Load the weights of `path` into `module`, all of whose names and shapes they must have; returns lines for the user.

    `path` may end in `:KEY`, the state dict of the file that is meant. Wrappers and prefixes are taken away, and what belongs
    to the training alone is left out. `about_classes` is said where only the number of classes differs. Raises
    InvalidSetting, with the first mismatches; `module` may then hold some of the weights.
    """
    found = read_state_dicts(path)
    first = found[0]
    try:  # as it is, because modules may know older names of their parameters
        module.load_state_dict(_without_prefixes(first.tensors), strict=True)
        return _told(path, _View(first, first.tensors), found)
    except RuntimeError:
        expected = module.state_dict()
    view = max((view for one in found for view in _views(one, expected)), key=lambda view: _fitting(view.tensors, expected))
    kept, left_out = _selected(view, expected)
    try:
        module.load_state_dict(kept, strict=True)
    except RuntimeError as error:
        rows = _mismatches(expected, kept) or [str(error).partition("\n")[0]]
        more = f"; and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        raise InvalidSetting(
            f"weights {str(path)!r} do not fit {type(module).__name__}: {'; '.join(rows[:NAMED])}{more}; "
            f"{_remedy(expected, kept, about_classes)}"
        ) from error
    return _told(path, view, found, left_out)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by parameter name, on the CPU, of the state dict that is taken from a file, without PREFIXES.

    Raises InvalidSetting if the file is missing, torn, or holds no state dict.
    """
    return dict(_without_prefixes(read_state_dicts(path)[0].tensors))


def read_state_dicts(path: Path) -> list[StateDict]:
    """The state dicts of a file, the preferred one first. Raises InvalidSetting if there is none, or not that of `:KEY`."""
    name, colon, key = str(path).rpartition(":")
    named = bool(colon) and not path.exists() and Path(name).is_file()
    content = read_content(Path(name) if named else path)
    found = sorted(_state_dicts(content), key=lambda one: _rank(one.key))
    if named and key not in {one.key for one in found}:
        raise InvalidSetting(f"{name!r} has no state dict {key!r}; it has {_few([one.key for one in found])}")
    if not found:
        raise _no_weights(content, path)
    return [one for one in found if one.key == key] if named else found


# -- where the weights are


def _state_dicts(content: object, key: str = "", depth: int = NESTED) -> list[StateDict]:
    """All state dicts: mappings from names to tensors that hold none with more tensors; of sequences, by number."""
    if isinstance(content, list | tuple):
        content = {str(number): value for number, value in enumerate(content) if isinstance(value, Mapping | list | tuple)}
    if not isinstance(content, Mapping) or depth == 0:
        return []
    tensors = {n: t for n, v in content.items() if isinstance(n, str) and (t := _tensor(v)) is not None}
    below = [
        one
        for name, value in content.items()
        if isinstance(name, str) and not _BESIDE.search(name)
        for one in _state_dicts(value, f"{key}.{name}".lstrip("."), depth - 1)
    ]
    if tensors and all(len(one.tensors) < len(tensors) for one in below):
        others = tuple(f"{name} ({type(value).__name__})" for name, value in content.items() if name not in tensors)
        return [StateDict(key, tensors, others)]
    return below


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, Array):
        return value.tensor()
    return value.detach() if isinstance(value, Tensor) else None


def _rank(key: str) -> tuple[int, int]:
    """The place of a key among WRAPPERS, by its first part that is one of them; outer ones come first."""
    parts = key.split(".")
    places = [WRAPPERS.index(part) for part in parts if part in WRAPPERS]
    return (min(places, default=len(WRAPPERS)), len(parts))


def _no_weights(content: object, path: Path) -> InvalidSetting:
    inner = list(content.values()) if isinstance(content, Mapping) else []
    pickled = next((one for one in (content, *inner) if isinstance(one, StandIn)), None)
    if pickled is not None and (pickled.is_module or pickled is content):
        return InvalidSetting(
            f"weights {str(path)!r} hold the Python object {pickled.full_name}, and reading it could run any code; where you "
            f"trust the file, write its tensors alone: {REWRITE}"
        )
    what = f"{type(content).__name__}"
    if isinstance(content, Mapping) and content:
        what += f" with {_few([f'{key!r} ({type(value).__name__})' for key, value in content.items()])}"
    return InvalidSetting(
        f"weights {str(path)!r} hold {what} and no tensors by name; give a state dict, alone or under a key such as "
        f"'state_dict' or 'model': {REWRITE}"
    )


# -- names


def _without_prefixes(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors without those of PREFIXES that all their names begin with, in any order and as often as they do."""
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) and name != p for name in tensors)), None):
        tensors = {name.removeprefix(prefix): t for name, t in tensors.items()}
    return tensors


def _views(source: StateDict, expected: Mapping[str, Tensor]) -> Iterator[_View]:
    """The tensors under their own names, under longer ones where all of the network's are, and without leading parts."""
    yield _View(source, source.tensors)
    if own := commonprefix(list(expected)).rpartition(".")[0]:
        yield _View(source, {f"{own}.{name}": t for name, t in source.tensors.items()}, added=f"{own}.")
    tensors, prefix = source.tensors, ""
    for _ in range(DEEPEST):
        parts = [part for part, _ in Counter(name.partition(".")[0] for name in tensors if "." in name).most_common(FEW)]
        if not parts:
            return
        inner = [{n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")} for part in parts]
        yield from (_View(source, below, f"{prefix}{part}.") for part, below in zip(parts, inner, strict=True))
        tensors, prefix = inner[0], f"{prefix}{parts[0]}."


def _fitting(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many tensors of the network are there, and of these, how many with their shape."""
    both = [name for name in expected if name in tensors]
    return sum(tensors[name].shape == expected[name].shape for name in both), len(both)


def _selected(view: _View, expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a view that are to be loaded, and the names of those that belong to the training alone."""
    idle = [name for name in view.tensors if name not in expected and _is_idle(name)]
    return {name: t for name, t in view.tensors.items() if name not in idle}, idle


def _is_idle(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] in _COUNTERS or any(_AUXILIARY.fullmatch(part) for part in parts)


# -- words


def _told(path: Path, view: _View, found: list[StateDict], left_out: list[str] | None = None) -> list[str]:
    """What was taken from the file, where that is not the whole of it as it is."""
    source = view.source
    others = [one.key for one in found if one is not source]
    dropped = [*source.left_out, *(name for name in source.tensors if not name.startswith(view.without)), *(left_out or [])]
    parts = [
        f"took {source.key!r}" if source.key else "",
        f"there is also {_few([repr(key) for key in others])}, to be had with --weights {path}:{others[0]}" if others else "",
        f"names without {view.without!r}" if view.without else f"names with {view.added!r}" if view.added else "",
        f"left out {_few(dropped)}" if dropped else "",
    ]
    told = "; ".join(part for part in parts if part)
    return [f"weights {str(path)!r}: {told}"] if told else []


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _remedy(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], about_classes: str) -> str:
    """How to mend it: names of another network, other classes, or else other weights."""
    if found and not set(expected) & set(found):
        return f"no name is in both: the network's are like {next(iter(expected), 'none')}, the file's like {next(iter(found))}"
    others = [(t.shape, found[name].shape) for name, t in expected.items() if name in found and t.shape != found[name].shape]
    heads = len({(ours[:1], theirs[:1]) for ours, theirs in others}) == 1 and all(a[1:] == b[1:] for a, b in others)
    if heads and not set(expected) ^ set(found):
        return f"give the weights of this very network, with as many classes{about_classes}"
    return "give the weights of this very network"


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
