"""How trainings of a run went: the loss against the part of the training that was done."""

from __future__ import annotations

from dataclasses import dataclass

from nas.rundir import RunDir

LOG = "training.jsonl"
# of one training
MOST_LINES = 200


@dataclass(frozen=True)
class Curve:
    """One training: `parts` of it that were done, in 0..1, and the loss of the step there."""

    name: str
    parts: tuple[float, ...]
    losses: tuple[float, ...]
    epochs: int


def last_step(run: RunDir, name: str) -> int:
    """The last step of training `name` that the run recorded, 0 if it recorded none. Raises CorruptRun."""
    return max((line["step"] for line in run.read_lines(LOG) if line["training"] == name), default=0)


def read_curves(run: RunDir) -> tuple[Curve, ...]:
    """The trainings that the run recorded, in order, none if it recorded none. Raises CorruptRun as `RunDir.read_lines`."""
    lines: dict[str, list[dict]] = {}
    for line in run.read_lines(LOG):
        lines.setdefault(line["training"], []).append(line)
    return tuple(
        Curve(name, tuple(x["step"] / x["steps"] for x in mine), tuple(x["loss"] for x in mine), 1 + mine[-1]["epoch"])
        for name, mine in lines.items()
    )
