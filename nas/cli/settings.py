"""What a user asked for, as one frozen value, from options, a TOML file, or the configuration of a run to go on with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import typer

from nas.cli.limits import check_options
from nas.cli.places import PLACES, moved, require_data, stored_places
from nas.errors import CorruptRun, InvalidSetting
from nas.records import REMEDY, check_record
from nas.rundir import CONFIG, RUNS, RunDir, latest

# what a search takes from the run whose supernet it searches
FROM_SUPERNET = tuple(
    (
        "data data_dir resolution space set epochs batch_size optimizer lr weight_decay smoothing clip_norm "
        "flip crop cutout mixup sampler"
    ).split()
)
# a run may go on on another machine
OF_THE_MACHINE = ("device", "threads")
# a training that diverged can be resumed with other values of these; config.json records the change (nas/cli/changes.py)
OF_THE_TRAINING = ("lr", "clip_norm", "train_precision")


@dataclass(frozen=True)
class Settings:
    """Options of `nas search` and `nas train`; None means a default that depends on the data."""

    budget: tuple[str, ...] = ()
    data: str = "digits"
    data_dir: str | None = None
    resolution: int | None = None
    space: str = "auto"
    set: tuple[str, ...] = ()
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: str = "sgd"
    lr: float | None = None
    weight_decay: float = 5e-4
    smoothing: float = 0.1
    clip_norm: float = 5.0
    flip: bool | None = None
    crop: int | None = None
    cutout: int = 0
    mixup: float = 0.0
    sampler: str = "budget"
    train_precision: str = "auto"
    runtime: str | None = None
    precision: str = "fp32"
    batch: int = 1
    table: str | None = None
    accept_foreign_table: bool = False
    searcher: str = "evolution"
    trials: int | None = None
    finetune_epochs: int | None = None
    time: str | None = None
    evaluate: str = "auto"
    baseline: bool | None = None
    supernet: str | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    data_at: str | None = None  # no option: where the data of a run are, see places.py

    def to_json(self) -> dict[str, object]:
        """Plain data for config.json, but for what is of this machine."""
        return {name: value for name, value in asdict(self).items() if name != "data_at"}


DEFAULTS = Settings()


S = TypeVar("S")


def read(ctx: typer.Context, command: str, kind: type[S]) -> tuple[S, Path | None]:
    """Collect the settings of a command, a frozen dataclass; with --resume also the folder of the run to go on with.

    Raises InvalidSetting if an option contradicts the run that is resumed or the supernet that is searched.
    """
    names = [f.name for f in fields(kind) if f.name in ctx.params]  # type: ignore[arg-type]
    values = {name: _plain(ctx.params[name]) for name in names}
    explicit = {n: values[n] for n in names if _is_explicit(ctx, n)}
    if ctx.params.get("resume"):
        run = RunDir.read(_resumed(ctx, command))
        if run.config.get("command") != command:
            raise InvalidSetting(f"{run.path} is a run of `nas {run.config.get('command')}`, not of `nas {command}`")
        stored = stored_options(run) | {n: explicit[n] for n in (*OF_THE_MACHINE, *OF_THE_TRAINING) if n in explicit}
        if explicit.get("data", stored["data"]) != stored["data"]:
            stored["data_at"] = moved(str(stored["data"]), str(explicit.pop("data")))
        _refuse_others(stored, explicit, f"{run.path} was started with")
        return as_kind(kind, stored, run), run.path
    if values.get("supernet"):
        options = stored_options(RunDir.read(Path(values["supernet"])))
        if options["supernet"]:
            raise InvalidSetting(
                f"{values['supernet']} searched the supernet of another run; use --supernet {options['supernet']}"
            )
        taken = {n: options[n] for n in FROM_SUPERNET}
        same = {n: v for n, v in explicit.items() if n in taken}
        _refuse_others(taken, same, f"the supernet of {values['supernet']} was trained with")
        values |= taken | {"data_at": options.get("data_at")}
    return kind(**{n: _plain(v) for n, v in values.items()}), None


def of_run(run: RunDir, kind: Callable[..., S], device: str | None = None, data: str | None = None) -> S:
    """The settings that a run was started with, on its device or another one, with its data where they are or at `data`."""
    stored = stored_options(run) | ({"device": device} if device else {})
    if data is not None:
        stored["data_at"] = moved(str(stored["data"]), data)
    return as_kind(kind, stored, run)


def as_kind(kind: Callable[..., S], stored: Mapping[str, Any], run: RunDir) -> S:
    """Settings out of a run. Raises CorruptRun for what no option can be, InvalidSetting for a number out of its range."""
    where = f"{str(run.path / CONFIG)!r}, options"
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(stored) - known):
        raise CorruptRun(f"{where} has the unknown {unknown[0]!r}; {REMEDY}")
    check_record(dict(stored), kind, where)
    check_options(stored)
    require_folder(stored.get("data_dir"))
    require_data(stored)
    return kind(**{name: _plain(value) for name, value in stored.items()})


def stored_options(run: RunDir) -> dict[str, Any]:
    """The options that a run was started with, and where its files are.

    Those of before there were --flip, --crop and --sampler say what it did then.
    """
    config = run.config
    done = config.get("augmentation", {})
    earlier = {"flip": done.get("flip"), "crop": done.get("crop_padding")} if done else {}
    if config.get("command") in ("search", "train"):
        earlier["sampler"] = "sandwich"
    options = {**earlier, **config["options"]}
    return {**options, **stored_places(options, config.get(PLACES))}


def require_folder(data_dir: str | None) -> None:
    """Raise InvalidSetting for a folder of data that a run names and that is not there: none is made that only a file names."""
    if data_dir is not None and not Path(data_dir).expanduser().is_dir():
        raise InvalidSetting(f"the run has --data-dir {data_dir!r}, which is no folder here; restore it")


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["nas", *sys.argv[1:]])


def _is_explicit(ctx: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line or in a TOML file."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def _resumed(ctx: typer.Context, command: str) -> Path:
    path = ctx.params.get("out") or latest(command)
    if path is None:
        raise InvalidSetting(f"--resume found no run of `nas {command}` in {RUNS}/; name one with --out")
    return Path(path)


def _refuse_others(stored: dict[str, Any], explicit: dict[str, Any], why: str) -> None:
    """Raise InvalidSetting if what was given explicitly disagrees with the stored settings."""
    for name, value in explicit.items():
        if _plain(stored.get(name)) != value:
            option = f"--{name.replace('_', '-')}"
            raise InvalidSetting(f"{option} is {value!r}, but {why} {stored.get(name)!r}; drop it or choose another --out")


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Lists as tuples and paths as text, as Settings holds them."""
    if isinstance(value, Path):
        return str(value)
    return tuple(value) if isinstance(value, list | tuple) else value
