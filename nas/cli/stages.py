"""The stages of a search that compute: training the supernet, and searching it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shlex import quote

import torch.nn as nn

from nas.architecture import Architecture
from nas.cli.job import Job
from nas.cli.progress import bar
from nas.data.augment import Augmentation
from nas.data.dataset import Dataset
from nas.errors import InvalidSetting
from nas.evaluation import NetworkEvaluator
from nas.evaluation.alone import AloneEvaluator
from nas.evaluation.supernet import SupernetEvaluator
from nas.report import training
from nas.report.latency import LOG
from nas.rundir import RunDir
from nas.search import SEARCHERS
from nas.search.loop import SearchSettings, run_search
from nas.search.searcher import FirstThen, Searcher
from nas.seeding import derive
from nas.supernet.supernet import Supernet
from nas.training.loop import Checkpoints, Objective, TrainConfig, steps_per_epoch, total_steps, train
from nas.training.objectives import in_place
from nas.trial import Trial

SUPERNET = "supernet"


def trained_supernet(job: Job, run: RunDir) -> Supernet:
    """Train the supernet from its last checkpoint, or load the one that was asked for."""
    if job.settings.supernet:
        return loaded_supernet(job, Path(job.settings.supernet))
    supernet = Supernet(job.space, job.settings.seed).to(job.device)
    config = job.training
    objective = in_place(supernet, job.sampler, job.settings.smoothing)
    fit("training", supernet, objective, Course(job.data, job.augmentation, config), Checkpoints(run, SUPERNET))
    return supernet


def evaluator_of(job: Job, run: RunDir) -> NetworkEvaluator:
    """What compares the networks of a job: a supernet, trained or loaded, or short trainings of each alone."""
    if job.plan.shared:
        return SupernetEvaluator(trained_supernet(job, run), job.data, job.settings.seed)
    return alone(job)


def alone(job: Job) -> AloneEvaluator:
    """The evaluator that trains each network alone."""
    return AloneEvaluator(job.space, job.lesson, job.settings.seed, job.device)


@dataclass(frozen=True)
class Course:
    """What a training reads, and how."""

    data: Dataset
    augmentation: Augmentation
    config: TrainConfig


def fit(label: str, module: nn.Module, objective: Objective, course: Course, checkpoints: Checkpoints) -> None:
    """Train to the end, and show how far it is; a run directory gets a line of its training log now and then."""
    config = course.config
    steps, run = total_steps(course.data, config), checkpoints.run
    epochs = math.ceil(steps / steps_per_epoch(course.data, config))
    every = math.ceil(steps / training.MOST_LINES)
    # steps after the last checkpoint are done again when a run goes on, and are not recorded again
    last = training.last_step(run, label) if run else steps
    with bar(label, steps) as shown:
        for progress in train(module, objective, course.data, course.augmentation, config, checkpoints):
            shown.update(progress.step, f"epoch {progress.epoch + 1}/{epochs}, loss {progress.loss:.3f}")
            if run and progress.step > last and (progress.step % every == 0 or progress.step == steps):
                run.append_line(training.LOG, {"training": label, **asdict(progress)})


@dataclass(frozen=True)
class Part:
    """A search, or one that goes on with another predictor: `start` trials were recorded before it, some with known scores."""

    number: int = 0
    start: int = 0
    trials: int | None = None
    known: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def searched(job: Job, run: RunDir, evaluator: NetworkEvaluator, part: Part | None = None) -> list[Trial]:
    """Search, going on after the recorded trials of this part; the trials are counted from 0 in every part."""
    part = part or Part()
    problem, journal = job.problem, run.path / "study.journal"
    if part.number:
        problem = replace(problem, seed=derive(problem.seed, "part", part.number))
        journal = journal.with_stem(f"study-{part.number}")
    searcher: Searcher = SEARCHERS[job.settings.searcher](problem, journal)
    if not job.plan.shared and problem.excess(job.space.largest()) == 0:
        searcher = FirstThen(searcher, (job.space.largest(),))  # the network that the space was chosen by
    wanted = part.trials or job.plan.trials
    # the only network to compare was compared with those of other spaces
    rows = job.decision.evidence if wanted == 1 and not job.plan.shared else ()
    known = {str(row["key"]): {"val_accuracy": float(str(row["val_accuracy"]))} for row in rows}
    done = [_counted_from(part.start, line, job) for line in recorded(run, part)]
    with bar("search", wanted) as shown:
        complete = sum(t.state == "complete" for t in done)
        best_accuracy = max((t.scores["val_accuracy"] for t in done if t.scores), default=0.0)

        def record(trial: Trial) -> None:
            nonlocal complete, best_accuracy
            run.append_trial(replace(trial, number=trial.number + part.start).to_json())
            if trial.state == "complete":
                complete += 1
                best_accuracy = max(best_accuracy, trial.scores["val_accuracy"])
            shown.update(complete, f"best {best_accuracy:.2%} validation")

        def evaluate(arch: Architecture) -> Mapping[str, float]:
            return part.known.get(arch.key) or known.get(arch.key) or evaluator(arch)

        return run_search(problem, searcher, evaluate, SearchSettings(wanted), record, done)


def recorded(run: RunDir, part: Part) -> list[dict]:
    """The recorded trials of a part: up to where the next one was timed."""
    ends = {line["attempt"]: line["trials"] for line in run.read_lines(LOG)}
    return run.trials()[part.start : ends.get(part.number)]


def _counted_from(start: int, line: dict, job: Job) -> Trial:
    trial = Trial.from_json(line, job.space.from_json(line["architecture"]))
    return replace(trial, number=trial.number - start)


def loaded_supernet(job: Job, path: Path) -> Supernet:
    """The trained supernet of the run in `path`. Raises InvalidSetting if it is not fully trained, or on other data."""
    source, supernet = RunDir.read(path), Supernet(job.space, job.settings.seed).to(job.device)
    if source.config["data"]["fingerprint"] != job.data.fingerprint:
        raise InvalidSetting(f"the supernet of {path} was trained on other data than {job.data.name} is now; train a new one")
    done = Checkpoints(source, SUPERNET).restore(supernet)
    steps = total_steps(job.data, job.training)
    if done < steps:
        command = f"nas {source.config['command']} --resume --out {quote(str(path))}"
        raise InvalidSetting(f"the supernet of {path} is trained for {done} of {steps} steps; finish it with: {command}")
    return supernet
