"""What the report says of a network that was made of another one: the original beside it, and what pruning left of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.rundir import RunDir

STAGES = "stages.jsonl"
ORIGINAL = "original"
# their trial 0 is the original
COMMANDS = ("prune", "quantize", "compress")
REMOVED = ".removed"


@dataclass(frozen=True)
class Stage:
    """How accurate a network was after a stage: cut (and recalibrated), or fine-tuned."""

    key: str
    name: str
    val_accuracy: float | None


@dataclass(frozen=True)
class Kept:
    """How many units a group of channels kept of those that it had, in order of execution."""

    group: str
    kept: int
    width: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.kept / self.width


@dataclass(frozen=True)
class Pruning:
    """What was made of the original: its name and metrics, stages by network, and what a pruned network kept.

    `left_out` says of each level of a sweep that no cut keeps, why; `slower` that the network is not faster, where it is so.
    """

    name: str
    metrics: Mapping[str, float]
    stages: tuple[Stage, ...]
    kept: tuple[Kept, ...]
    removed: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    slower: str = ""


def read_pruning(run: RunDir, summary: Mapping[str, Any], best: Mapping[str, Any]) -> Pruning | None:
    """Read it from a run directory, None if the run has no original; `best` are the choices of the delivered network.

    Choices say what channels were kept in runs of `nas prune` alone.
    """
    config = run.config
    if config.get("command") not in COMMANDS or not (trials := run.trials()):
        return None
    first, original = trials[0], summary.get(ORIGINAL, {})
    metrics = {name: metric["value"] for name, metric in first["cost"].items()} | dict(first["scores"])
    widths = first["architecture"]["choices"] if config["command"] == "prune" else {}
    kept = tuple(Kept(name, best[name], width) for name, width in widths.items() if _are_units(width, best.get(name)))
    removed = tuple(name.removesuffix(REMOVED) for name in best if name.endswith(REMOVED))
    stages = (Stage(x["key"], x["stage"], x["scores"].get("val_accuracy")) for x in run.read_lines(STAGES))
    name = str(original.get("name") or config.get("options", {}).get("network", ORIGINAL))
    left_out = tuple(str(trial["error"]) for trial in trials if trial["state"] == "infeasible")
    return Pruning(
        name, {**metrics, **original.get("metrics", {})}, tuple(stages), kept, removed, left_out, str(summary.get("slower", ""))
    )


def _are_units(width: object, kept: object) -> bool:
    """Whether a choice of the original, and of a network, is a number of units."""
    return type(width) is int and type(kept) is int and 0 <= kept <= width != 0


def stages_of(pruning: Pruning, key: str) -> Sequence[Stage]:
    """The original and then the stages of one network."""
    return [Stage("", ORIGINAL, pruning.metrics.get("val_accuracy")), *(s for s in pruning.stages if s.key == key)]
