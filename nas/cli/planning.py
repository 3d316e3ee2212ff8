"""How the time of a run is divided: choosing the space, comparing its networks, training the one that is delivered."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from nas.data.dataset import Dataset
from nas.errors import InvalidSetting
from nas.rundir import RunDir
from nas.training.speed import work_seconds

# shares of --time; of the rounds of choosing each has one
CHOOSING = (0.05, 0.04, 0.1)
COMPARING, SUPERNET = 0.08, 0.45
# seconds that export, verification and the report take after the trainings, and at most of --time
CLOSING, MOST_CLOSING = 12.0, 0.15
# in estimates: augmentation, gradients' norm and the optimizer beside forward and backward
OVERHEAD = 1.22
LEAST_STEPS = 20
# of a step of the largest network: one of a network that it teaches
TAUGHT = 1.4
# images that one network sees in the rounds of choosing, and in a comparison of networks trained alone, without --time
ROUNDS, COMPARED = (6_000, 18_000, 72_000), 24_000
SUPERNET_TRIALS, ALONE_TRIALS = 100, 6
# passes over the data of the network that is delivered, without --time; of small data as many as make these steps
FINAL_EPOCHS, FINAL_STEPS, MOST_FINAL_EPOCHS = 40, 1200, 80
SMALL_DATA = 10_000
LEAST_EPOCHS, MOST_EPOCHS, STEPS = 32, 130, 660  # of a supernet
# of the epochs of its supernet: those of a delivered network that starts from its weights
TAUGHT_PART = 0.75
LOG = "time.jsonl"
_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)(?:min|m))?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True)
class TimePlan:
    """What a search does with its time; `seconds` is --time, 0 where none was given, and then lengths are fixed.

    `shared` says whether networks are compared with a supernet's weights or each trained alone for `compared_steps`.
    `final_steps` is the training of the delivered network, 0 for none, None where the time that is left decides. `estimate` are
    the seconds that all of it takes on this machine.
    """

    seconds: float
    shared: bool
    supernet_steps: int | None
    trials: int
    compared_steps: int
    final_steps: int | None
    estimate: float = 0.0

    def to_json(self) -> dict[str, object]:
        """Plain data for config.json."""
        return asdict(self)


class Clock:
    """The work of a run so far, over all of its processes, in the seconds of `work_seconds`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._began, self._before = device, work_seconds(device), 0.0

    def resume(self, run: RunDir) -> None:
        """Count what earlier processes of the run have noted."""
        self._before = sum(spent(run).values())

    def elapsed(self) -> float:
        """Seconds of work since the run began."""
        return self._before + work_seconds(self.device) - self._began

    @contextmanager
    def stage(self, run: RunDir, name: str, steps: int = 0) -> Iterator[None]:
        """Note the seconds of a stage when it ends."""
        start = work_seconds(self.device)
        yield
        record(run, name, work_seconds(self.device) - start, steps)


def parse_time(text: str | None) -> float:
    """Seconds of `90s`, `3min`, `1h30min`; 0 for None. Raises InvalidSetting."""
    if text is None:
        return 0.0
    match = _TIME.fullmatch(text.strip().lower())
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if not 1 <= total <= 3.2e7:
        raise InvalidSetting(f"--time {text!r} is not understood; write 90s, 3min, 2h or 1h30min")
    return total


def supernet_epochs(data: Dataset, batch_size: int) -> int:
    """How long a supernet is trained where nothing says so: enough steps on small data, enough passes on large data."""
    return max(LEAST_EPOCHS, min(MOST_EPOCHS, STEPS // max(1, len(data.train) // batch_size)))


def final_epochs(data: Dataset, batch_size: int, shared: bool) -> int:
    """How long the delivered network is trained where nothing says so: passes over the training images.

    One that is trained from a supernet's weights (`shared`) needs fewer.
    """
    if shared:
        return round(TAUGHT_PART * supernet_epochs(data, batch_size))
    per_epoch = max(1, len(data.train) // batch_size)
    return max(FINAL_EPOCHS, min(MOST_FINAL_EPOCHS, math.ceil(FINAL_STEPS / per_epoch)))


def steps_for(seconds: float, per_step: float) -> int:
    """Steps that a time allows, at least 1."""
    return max(1, int(seconds / per_step))


def record(run: RunDir, stage: str, seconds: float, steps: int = 0) -> None:
    """Note where the time of a run went; processes of a run that was resumed add up."""
    run.append_line(LOG, {"stage": stage, "seconds": round(seconds, 2), "steps": steps})


def spent(run: RunDir) -> dict[str, float]:
    """Seconds of each stage so far."""
    result: dict[str, float] = {}
    for line in run.read_lines(LOG):
        result[line["stage"]] = result.get(line["stage"], 0.0) + line["seconds"]
    return result


def times(run: RunDir) -> dict[str, float]:
    """Seconds of each stage as a summary has them."""
    return {stage: round(seconds, 1) for stage, seconds in spent(run).items() if seconds}


def estimated(plan: TimePlan, supernet_steps: float, per_step: float) -> float:
    """Seconds that a plan takes without --time, where a step of the largest network takes `per_step`.

    `supernet_steps` are the supernet's in steps of that network.
    """
    compared = 0.0 if plan.shared else plan.trials * plan.compared_steps * OVERHEAD * per_step
    trained = (plan.final_steps or 0) * OVERHEAD * per_step * (TAUGHT if plan.shared else 1.0)
    supernet = supernet_steps * per_step if plan.shared else 0.0
    return CLOSING + compared + trained + supernet


def planned_steps(run: RunDir, stage: str) -> int | None:
    """The length of a stage that an earlier process of the run decided."""
    return next((line["steps"] for line in run.read_lines(LOG) if line["stage"] == planned(stage)), None)


def planned(stage: str) -> str:
    """The name under which the length of a stage is noted."""
    return f"plan: {stage}"


def steps_left(plan: TimePlan, clock: Clock, per_step: float) -> int:
    """Steps of the last training that the rest of --time allows, at least LEAST_STEPS; a whole step takes `per_step`."""
    closing = min(CLOSING, MOST_CLOSING * plan.seconds)
    return max(LEAST_STEPS, int((plan.seconds - closing - clock.elapsed()) / per_step))


def tell(seconds: float) -> str:
    """`45 s`, `3.5 min`, `2.1 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
