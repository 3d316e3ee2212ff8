"""A recipe: the passes of `nas compress` as values, read from TOML and checked before anything runs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from nas.cli.limits import check_number, check_shape, is_number
from nas.cli.places import moved, places, stored_places
from nas.cli.pruning.settings import PruneSettings
from nas.cli.quantizing.settings import QuantizeSettings
from nas.cli.shared_settings import TrainingSettings
from nas.errors import InvalidSetting, did_you_mean, unknown_key
from nas.files import read_regular

BOUNDS = ("max_drop", "min_speedup")
_LISTS = ("budget", "keep", "bits", "activation_bits")
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_STAGES = {
    "recalibrate": "batch norms are recalibrated by every prune and every fine-tune",
    "finetune": "write fine-tune, behind a prune",
    "verify": "every pass is verified",
}


@dataclass(frozen=True)
class ExportSettings:
    """Options of the pass `export`."""

    network: str = ""
    format: str = "onnx"


@dataclass(frozen=True)
class FineTuneSettings(TrainingSettings):
    """Options of the pass `fine-tune`: the run that pruned the network, and what `nas prune` has about training."""

    network: str = ""


FINE_TUNE = "fine-tune"
SETTINGS: Mapping[str, type] = {
    "prune": PruneSettings,
    FINE_TUNE: FineTuneSettings,
    "quantize": QuantizeSettings,
    "export": ExportSettings,
}


@dataclass(frozen=True)
class Step:
    """A pass: its name, its settings but for the network, and its bounds; `own` are the settings of its own table."""

    name: str
    options: Mapping[str, Any]
    bounds: Mapping[str, float]
    own: tuple[str, ...] = field(default=(), compare=False)

    def settings(self, network: str, weights: str | None) -> Any:  # noqa: ANN401 - one of SETTINGS
        """The settings of the command, for a network."""
        own = {"weights": weights} if "weights" in _names(self.name) else {}
        return SETTINGS[self.name](**{**self.options, "network": network, **own})


@dataclass(frozen=True)
class Recipe:
    """A network, its weights, and the passes in order."""

    network: str
    weights: str | None
    steps: tuple[Step, ...]


def read_recipe(path: Path, network: str = "") -> Recipe:
    """Read a TOML file; `network` takes the place of the one in it. Raises InvalidSetting quoting what is wrong."""
    try:
        content = tomllib.loads(read_regular(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidSetting(
            f"cannot read recipe {str(path)!r} ({error}); expected a TOML file with [[pass]] tables"
        ) from error
    passes = content.pop("pass", None)
    if not (isinstance(passes, list) and passes and all(isinstance(table, dict) for table in passes)):
        raise InvalidSetting(f"recipe {str(path)!r} has no passes; write one [[pass]] table for each, with its name")
    shared, known = content, {name for kind in SETTINGS for name in _names(kind)}
    if unknown := sorted(set(shared) - known):
        raise InvalidSetting(f"recipe {str(path)!r} {unknown_key(unknown[0], known)}")
    for key in ("network", "weights"):
        _value("the recipe", key, shared.get(key, ""), str)
    wanted = network or shared.get("network", "")
    if not wanted:
        raise InvalidSetting(f'recipe {str(path)!r} names no network; add network = "resnet50", or give one to the command')
    steps = tuple(_step(number, table, shared) for number, table in enumerate(passes, 1))
    _check_order(steps)
    later = (*steps[1:], None)
    steps = tuple(map(_trained_later, steps, passes, later))
    weights = None if network and Path(network).is_dir() else shared.get("weights")
    return Recipe(wanted, weights, steps)


def _step(number: int, table: Mapping[str, Any], shared: Mapping[str, Any]) -> Step:
    name = str(table.get("name"))
    if name in _STAGES:
        raise InvalidSetting(f"pass {number} of the recipe is {name!r}, which is no pass of its own: {_STAGES[name]}")
    if name not in SETTINGS:
        near = did_you_mean(name, SETTINGS)
        raise InvalidSetting(f"pass {number} of the recipe is {name!r}{near}; choose one of {', '.join(SETTINGS)}")
    known = _names(name) - {"network", "weights"}
    given = {key: value for key, value in table.items() if key not in ("name", *BOUNDS)}
    if unknown := sorted(set(given) - known):
        raise InvalidSetting(f"pass {number} ({name}) of the recipe {unknown_key(unknown[0], {*known, *BOUNDS})}")
    options = {key: value for key, value in shared.items() if key in known} | given
    kinds, place = get_type_hints(SETTINGS[name]), f"pass {number} ({name}) of the recipe"
    bounds = {key: float(_value(place, key, table[key], float)) for key in BOUNDS if key in table}
    return Step(name, {key: _value(place, key, value, kinds[key]) for key, value in options.items()}, bounds, tuple(given))


def _check_order(steps: Sequence[Step]) -> None:
    """Raise InvalidSetting for passes that cannot follow each other."""
    for number, (before, step) in enumerate(zip((None, *steps[:-1]), steps, strict=True), 1):
        if step.name == FINE_TUNE and (before is None or before.name != "prune"):
            raise InvalidSetting(
                f"pass {number} of the recipe is {FINE_TUNE}, which must directly follow a prune; to train "
                'a quantized network, give quantize method = "qat"'
            )
        if step.name == FINE_TUNE and before is not None and not before.options.get("data"):
            raise InvalidSetting(f'pass {number} of the recipe is {FINE_TUNE}, and there are no images; add data = "..."')
        if before is not None and before.name == "quantize" and step.name != "export":
            raise InvalidSetting("quantize must be the last pass but for export: a network of integers is not cut any more")


def _trained_later(step: Step, table: Mapping[str, Any], later: Step | None) -> Step:
    """A prune before a fine-tune does not train by itself. Raises InvalidSetting if its own table says that it does."""
    if later is None or later.name != FINE_TUNE:
        return step
    if table.get("finetune_epochs"):
        raise InvalidSetting(
            f"the recipe trains twice: prune has finetune_epochs = {table['finetune_epochs']}, and a fine-tune follows; "
            "drop one of the two"
        )
    if later.options.get("finetune_epochs") == 0:
        raise InvalidSetting("finetune_epochs is 0, and the recipe has a fine-tune; drop one of the two")
    return replace(step, options={**step.options, "finetune_epochs": 0})


def _names(kind: str) -> set[str]:
    return {f.name for f in fields(SETTINGS[kind])} - {"data_at"}  # which is no option


def _value(place: str, key: str, value: Any, kind: Any) -> Any:  # noqa: ANN401 - TOML has any
    """Lists as tuples; one text where several may be given is a list of one. Raises InvalidSetting for another type."""
    if key in _LISTS:
        return (str(value),) if not isinstance(value, list) else tuple(str(v) for v in value)
    wanted = {float: (int, float)}.get(kind, kind)
    options = get_args(wanted) if get_args(wanted) else wanted if isinstance(wanted, tuple) else (wanted,)
    if float in options:
        options = (*options, int)
    # True is an integer for Python, and no number for people
    if not isinstance(value, options) or (isinstance(value, bool) and bool not in options):
        known = " or ".join(_WORDS[option] for option in options if option in _WORDS)
        raise InvalidSetting(f"{place} has {key} = {value!r}; expected {known}")
    if is_number(value):
        check_number(f"{place} has {key} =", key, value)
    elif key == "shape":
        check_shape(f"{place} has shape = {value!r}, which", value)
    return value


# -- where its files are


def recipe_places(recipe: Recipe) -> dict[str, str]:
    """Absolute paths of the files that a recipe names, for a run that is resumed from another folder."""
    found = places({"weights": recipe.weights})
    for number, step in enumerate(recipe.steps, 1):
        found |= {f"{number}.{name}": path for name, path in places(step.options).items()}
    return found


def at_places(recipe: Recipe, stored: object, data: str | None) -> Recipe:
    """The recipe of a run with its files where they are now, `data` among them. Raises InvalidSetting for other data."""
    known = stored if isinstance(stored, Mapping) else {}
    weights = stored_places({"weights": recipe.weights}, known).get("weights", recipe.weights)
    steps = [
        _at(step, {name.removeprefix(f"{number}."): path for name, path in known.items()}, data)
        for number, step in enumerate(recipe.steps, 1)
    ]
    return replace(recipe, weights=weights, steps=tuple(steps))


def _at(step: Step, known: Mapping[str, str], data: str | None) -> Step:
    found = stored_places(step.options, known)
    if data is not None and step.options.get("data"):
        found["data_at"] = moved(step.options["data"], data)
    fitting = {f.name for f in fields(SETTINGS[step.name])}  # a fine-tune has the data of the prune before it
    return replace(step, options={**step.options, **{name: path for name, path in found.items() if name in fitting}})
