"""What a run is told otherwise when it is resumed: the learning rate after a divergence, and the like."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Any

from nas.cli.progress import log
from nas.cli.settings import OF_THE_TRAINING
from nas.errors import InvalidSetting, TrainingDiverged
from nas.report.contents import SUMMARY
from nas.report.passes import PASSES
from nas.rundir import CONFIG, RunDir

LOWER = 0.1  # of the learning rate that diverged


def record_changes(run: RunDir, config: Mapping[str, Any]) -> None:
    """Note in config.json what a resumed run trains with from here on, and say so; a pass has what its recipe says."""
    stored, asked = run.config, config["options"]
    before = stored.get("options", {})
    changed = [n for n in OF_THE_TRAINING if n in asked and n in before and asked[n] != before[n]]
    if not changed or run.path.parent.name == PASSES:
        return
    _require_training_ahead(run, stored.get("command"), changed)
    rows = [{"option": name, "from": before[name], "to": asked[name]} for name in changed]
    told = {"options": {**before, **{n: asked[n] for n in changed}}, "changes": [*stored.get("changes", ()), *rows]}
    training = {"training": config["training"]} if "training" in config else {}
    run.write_json(CONFIG, {**stored, **training, **told})
    for row in rows:
        log(f"from here on with {_option(row['option'])} {row['to']}, before with {_plain(row['from'])}")


def _require_training_ahead(run: RunDir, command: object, changed: list[str]) -> None:
    """Raise InvalidSetting where what would train otherwise has been trained: the run would claim what is not so."""
    if (run.path / SUMMARY).is_file() or (command == "search" and run.trials()):
        raise InvalidSetting(f"{_option(changed[0])}: the training of {run.path} is over; start a new run, or drop the option")


def how_to_resume(error: TrainingDiverged, run: RunDir, command: str) -> TrainingDiverged:
    """The error with the command that goes on from the checkpoint with a lower learning rate."""
    rate = run.config.get("training", {}).get("lr")
    if not isinstance(rate, int | float) or run.path.parent.name == PASSES:
        return error
    resume = f"nas {command} --resume --out {quote(str(run.path))} --lr {LOWER * rate:g}"
    return TrainingDiverged(f"{error}; resume from there with: {resume}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _plain(value: object) -> str:
    return "the default" if value is None else str(value)
