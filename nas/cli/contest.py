"""The contest of `--space auto`: candidates are trained in rounds, and the best one is chosen by its validation accuracy.

Successive halving (Jamieson and Talwalkar 2016): all are trained for a moment, the best ones go on for longer. What sees the
image in full learns more slowly than what halves it early, and more in the end (docs/benchmarks.md), so that the best of either
kind meet in a last round, which is longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from nas.accuracy import standard_error
from nas.cli.choosing import Candidate, timed
from nas.cli.planning import CHOOSING, OVERHEAD, ROUNDS, steps_for
from nas.cli.progress import bar
from nas.evaluation.alone import Lesson, fresh, some_of, teach
from nas.evaluation.supernet import accuracy, calibrate, resolution_of
from nas.seeding import derive
from nas.training.speed import work_seconds

SECOND_ROUND = 4
# times the error of the best candidate: one of another detail that has more is not tried again
RIVAL = 1.3
ENOUGH_WEIGHTS = 200_000
# images that judge, by round, and that norms are calibrated on: all of them would take a tenth of a short run
VALIDATION, CALIBRATION = (1000, 2000, 3000), 512


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen, and the evidence: one row a candidate and round."""

    candidate: Candidate
    evidence: tuple[dict[str, object], ...]


@dataclass(frozen=True)
class Contest:
    """The short trainings of candidates: what all of them have in common."""

    lesson: Lesson
    seed: int
    device: torch.device

    def train(self, candidate: Candidate, number: int, steps: int) -> tuple[Candidate, float]:
        """The candidate after round `number`, with its weights and the seconds of a step, and its validation accuracy.

        It goes on from the weights of the round before, with other images first.
        """
        arch, data, config = candidate.space.largest(), self.lesson.data, self.lesson.config
        side, module = resolution_of(arch), fresh(candidate.space, arch, self.seed, self.device)
        if candidate.weights:
            module.load_state_dict(candidate.weights)
        began = work_seconds(self.device)
        config = replace(config, steps=steps, seed=derive(config.seed, "round", number))
        teach(module, replace(self.lesson, config=config), side)
        seconds = (work_seconds(self.device) - began) / steps
        calibrate(module, data, side, self.seed, CALIBRATION)
        weights = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
        judged = some_of(data, VALIDATION[number], self.seed)
        return replace(candidate, step_seconds=seconds, weights=weights), accuracy(module, judged.val, data, side)


def choose(
    found: Sequence[Candidate],
    lesson: Lesson,
    seed: int,
    device: torch.device,
    seconds: float = 0.0,
    most_steps: int = 1_000_000,
) -> Choice:
    """Train candidates in rounds, and choose the best one by its validation accuracy.

    `seconds` is --time, of which each round has a part that its candidates share; 0 for lengths in images, each at most
    `most_steps`. All are trained in the first round, the best four in the second, and in the last one the best one and the best
    of another detail. Of candidates within a standard error of the best one, the most promising is chosen.
    """
    contest = Contest(lesson, seed, device)
    left, rows = [timed(candidate, lesson, seed, device) for candidate in found], []
    scores: dict[str, float] = {}
    for number, (part, length, kept) in enumerate(zip(CHOOSING, steps_of_rounds(lesson, most_steps), KEPT, strict=True)):
        entered = kept(left, scores)
        if number and len(entered) < 2:
            continue  # nothing to compare
        left = entered
        with bar(f"choosing the space, round {number + 1}", len(left)) as shown:
            for done, candidate in enumerate(left, 1):
                steps = steps_for(part * seconds / len(left), candidate.step_seconds) if seconds else length
                left[done - 1], scores[candidate.space.id] = contest.train(candidate, number, steps)
                rows.append(_row(left[done - 1], number, steps, scores[candidate.space.id]))
                shown.update(done, f"{candidate.family} {scores[candidate.space.id]:.1%} validation")
    best = max(scores[c.space.id] for c in left)
    error = standard_error(best, min(VALIDATION[int(str(rows[-1]["round"]))], len(lesson.data.val)))
    return Choice(max((c for c in left if scores[c.space.id] >= best - error), key=_promise), tuple(rows))


def _promise(candidate: Candidate) -> float:
    """What a candidate may gain in a longer training, to compare it with others that are as good until now.

    One that sees more of the image gains more as long as it has the weights for it: on CIFAR-10 twice the side won with 0.9
    million of them, and lost with 29,000 against 70,000 (docs/benchmarks.md).
    """
    return candidate.detail * min(candidate.cost["params"], ENOUGH_WEIGHTS)


def _ranked(left: Sequence[Candidate], scores: Mapping[str, float]) -> list[Candidate]:
    return sorted(left, key=lambda c: -scores.get(c.space.id, 0.0))


def _semifinal(left: Sequence[Candidate], scores: Mapping[str, float]) -> list[Candidate]:
    """The best few, among them one of another detail than the best one's."""
    ranked = _ranked(left, scores)
    first, others = ranked[: SECOND_ROUND - 1], _of_other_detail(ranked)
    seen = ranked[0].detail
    return [*first, others[0]] if others and all(c.detail == seen for c in first) else ranked[:SECOND_ROUND]


def _final(left: Sequence[Candidate], scores: Mapping[str, float]) -> list[Candidate]:
    """The best one, and the best of another detail unless it is clearly behind."""
    ranked = _ranked(left, scores)
    limit = RIVAL * (1.0 - scores[ranked[0].space.id])
    return [ranked[0], *(c for c in _of_other_detail(ranked)[:1] if 1.0 - scores[c.space.id] <= limit)]


def _of_other_detail(ranked: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in ranked if c.detail != ranked[0].detail]


# who is trained in each round
KEPT: tuple[Callable[[Sequence[Candidate], Mapping[str, float]], list[Candidate]], ...] = (_ranked, _semifinal, _final)


def steps_of_rounds(lesson: Lesson, most: int) -> list[int]:
    """Steps of a training in each round, where they are not given by a time."""
    batch = min(lesson.config.batch_size, len(lesson.data.train))
    return [min(most, math.ceil(images / batch)) for images in ROUNDS]


def seconds_of_rounds(found: Sequence[Candidate], lesson: Lesson, most: int, seconds: float) -> float:
    """About how long the rounds take at most, of --time or without it; networks of the later ones are taken to be average."""
    finalists = 2 if len({candidate.detail for candidate in found}) > 1 else 0
    trained = (len(found), min(SECOND_ROUND, len(found)), finalists)
    if seconds:
        return sum(part * seconds for part, networks in zip(CHOOSING, trained, strict=True) if networks > 1 or len(found) == 1)
    step = OVERHEAD * sum(candidate.step_seconds for candidate in found) / len(found)
    return step * sum(steps * networks for steps, networks in zip(steps_of_rounds(lesson, most), trained, strict=True))


def _row(candidate: Candidate, number: int, steps: int, accuracy: float) -> dict[str, object]:
    return {
        "round": number,
        "family": candidate.family,
        "form": candidate.form.macro.name,
        "widths": list(candidate.form.macro.widths),
        "depth": candidate.form.macro.depth,
        "resolution": candidate.space.resolutions[-1],
        "space": candidate.space.id,
        "key": candidate.space.largest().key,
        "macs": candidate.macs,
        "steps": steps,
        "step_ms": round(1e3 * candidate.step_seconds, 2),
        "val_accuracy": accuracy,
    }
