"""From trials to the network that is handed over: extract, fine-tune, export, verify, describe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from compress.export import write_files
from compress.verify import VERDICT, VerifyInputs, verify
from nas import files
from nas.architecture import Architecture
from nas.cli import integers
from nas.cli.checking import comparison_images, file_latency
from nas.cli.deciding import with_steps
from nas.cli.job import Job, versions
from nas.cli.planning import Clock, planned, planned_steps, record, steps_left, times
from nas.cli.progress import log
from nas.cli.scoring import scores_row
from nas.cli.stages import Course, alone, fit
from nas.cost.recount import recount
from nas.errors import InfeasibleBudget
from nas.evaluation import NetworkEvaluator
from nas.evaluation.alone import Lesson
from nas.evaluation.answers import answers_of
from nas.evaluation.supernet import accuracy, calibrate, resolution_of
from nas.latency.machine import device_name
from nas.report.card import model_card
from nas.report.latency import agreement, read_timings
from nas.report.portable import near_values, without_paths
from nas.rundir import RunDir
from nas.search.problem import VAL_ACCURACY
from nas.search.select import best, cheaper, front, least_excess
from nas.training.loop import Checkpoints, Objective
from nas.training.objectives import Distillation, at_resolution, classification, distillation
from nas.training.speed import seconds_of_training
from nas.trial import Trial, dominates, shortfall

if TYPE_CHECKING:
    from nas.cli.pruning.job import PruneJob
    from nas.cli.quantizing.job import QuantizeJob

BEST, VERIFY = "best", VERDICT
TRAINING = "training the delivered network"
VERIFIED_IMAGES = 256
# of the supernet's peak learning rate: fine-tuning starts from trained weights, which the full rate would disturb
FINETUNE_LR = 0.3


def deliver(job: Job, run: RunDir, evaluator: NetworkEvaluator, trials: Sequence[Trial], clock: Clock) -> dict[str, Any]:
    """Write and verify best/, and return the summary. Test data are read here, once."""
    trial, nondominated = _chosen(job, trials)
    folder = run.path / BEST
    steps = _plan_training(job, run, evaluator, trial, clock)
    with clock.stage(run, TRAINING, steps):
        handed, verdict = hand_over(job, run, evaluator, trial, folder, Checkpoints(run, "finetune"))
    summary = {
        **header(job, run.config["command"]),
        **handed,
        "front": _front_rows(nondominated, handed["best"], job.problem.objectives),
        "trials": len(trials),
        **({"cheaper": network_row(found)} if (found := cheaper(trials, job.problem, len(job.data.val))) else {}),
        "time": times(run),
    }
    if timings := read_timings(run):
        summary["latency"] = agreement(timings).to_json()
    write_card(folder, summary, run.config, verdict)
    return summary


def _plan_training(job: Job, run: RunDir, evaluator: NetworkEvaluator, trial: Trial, clock: Clock) -> int:
    """Decide once how long the delivered network is trained where the time that is left decides, and note it in the run."""
    steps = final_steps(job, run)
    if steps is None:
        module, objective, lesson = _untrained(job, evaluator, trial)
        per_step = seconds_of_training(module, objective, lesson.data, lesson.augmentation, lesson.config)
        steps = steps_left(job.plan, clock, per_step)
        record(run, planned(TRAINING), 0.0, steps)
    return steps


def final_steps(job: Job, run: RunDir) -> int | None:
    """Steps of training the delivered network; None where that is not decided yet."""
    return job.plan.final_steps if job.plan.final_steps is not None else planned_steps(run, TRAINING)


def _front_rows(trials: Sequence[Trial], delivered: Mapping[str, Any], objectives: Sequence[str]) -> list[dict[str, Any]]:
    """The front, the delivered network with the metrics that it was delivered with: what that beats is left out."""
    rows: list[dict[str, Any]] = [network_row(t) for t in trials]
    for row in rows:
        if row["key"] == delivered["key"]:
            row["metrics"] = {name: delivered["metrics"].get(name, value) for name, value in row["metrics"].items()}
            delivered = row
    return unbeaten(rows, delivered, objectives)


def unbeaten(rows: Sequence[dict[str, Any]], delivered: Mapping[str, Any], objectives: Sequence[str]) -> list[dict[str, Any]]:
    """Networks of a summary that the delivered one does not dominate in accuracy and all objectives."""

    def point(row: Mapping[str, Any]) -> np.ndarray:
        metrics = row["metrics"]
        return np.array([shortfall(metrics), *(metrics.get(name, math.nan) for name in objectives)])

    return [row for row in rows if not dominates(point(delivered), point(row))]


def hand_over(
    job: Job, run: RunDir, evaluator: NetworkEvaluator, trial: Trial, folder: Path, checkpoints: Checkpoints
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Extract, fine-tune where that was asked for, write the files of `folder` and verify them. Test data are read here.

    Returns what the summary has of it, and the content of verify.json; `checkpoints` are those of the fine-tuning.
    """
    arch = trial.architecture
    module, scores = _trained(job, run, evaluator, trial, checkpoints)
    module = module.cpu().to(memory_format=torch.contiguous_format)
    if integers.wanted(job):
        made = integers.rounded(job, arch, module, _described(run, arch))
        verdict = integers.write_verified(job, made, arch, _described(run, arch), folder)
        files.replace(folder / VERIFY, files.to_json(verdict))
        scores, told = integers.scores_of(job, made, arch, folder)
        return {**delivered_row(arch, verdict, scores), **told}, verdict
    log("reading the test data, for the delivered network alone")
    test = answers_of(module.to(job.device), job.data.load_test(), job.data, resolution_of(arch))
    scores["test_accuracy"] = test.accuracy
    log("writing and verifying the model files")
    # the formats want weights without the strides of channels-last
    verdict = write_verified(job, run, arch, module.cpu().to(memory_format=torch.contiguous_format), folder)
    return {**delivered_row(arch, verdict, scores), **scores_row(job.data, scores, test)}, verdict


def _chosen(job: Job, trials: Sequence[Trial]) -> tuple[Trial, list[Trial]]:
    """The best network and the front; under a budget in ms the best of those that were timed.

    Where the clock leaves none in the budget, that is the nearest one, which will fail its check.
    """
    model = job.own_latency
    if model is None:
        return best(trials, job.problem), front(trials, job.problem)
    timed = [trial for trial in trials if trial.architecture.key in model.measured]
    try:
        return best(timed, job.problem), front(trials, job.problem)
    except InfeasibleBudget as error:
        nearest = least_excess(timed, job.problem)[0]
        log(f"{error}; network {nearest.architecture.key} comes nearest and is delivered")
        return nearest, [nearest]


def _trained(
    job: Job, run: RunDir, evaluator: NetworkEvaluator, trial: Trial, checkpoints: Checkpoints
) -> tuple[nn.Module, dict[str, float]]:
    """The delivered network, trained to its end: from its own weights or, if it was in a supernet, from those, and taught.

    Returns the better one of the trained network and that of the supernet, with its validation accuracy.
    """
    arch, steps = trial.architecture, final_steps(job, run)
    if not steps:
        return evaluator.deliver(arch), {VAL_ACCURACY: trial.scores[VAL_ACCURACY]}
    module, objective, lesson = _untrained(job, evaluator, trial)
    fit(TRAINING, module, objective, Course(job.data, lesson.augmentation, with_steps(lesson, steps).config), checkpoints)
    calibrate(module, job.data, resolution_of(arch), job.settings.seed)
    reached = accuracy(module, job.data.val, job.data, resolution_of(arch))
    searched = trial.scores[VAL_ACCURACY]
    if reached >= searched or not job.plan.shared:
        return module, {VAL_ACCURACY: reached}
    log(f"training it alone made it worse ({reached:.2%} validation): the network is delivered as it was searched")
    return evaluator.deliver(arch), {VAL_ACCURACY: searched}


def _untrained(job: Job, evaluator: NetworkEvaluator, trial: Trial) -> tuple[nn.Module, Objective, Lesson]:
    """The network that is delivered, before it is trained to its end, with the objective and the lesson of that training."""
    arch, lesson = trial.architecture, job.lesson
    if not job.plan.shared:
        module = alone(job).plain(arch)
        if job.decision.weights and arch == job.space.largest():  # it goes on from the short trainings
            module.load_state_dict(job.decision.weights)
        return module, classification(at_resolution(module, resolution_of(arch)), lesson.smoothing), lesson
    module = evaluator.deliver(arch)
    lesson = replace(lesson, config=replace(lesson.config, lr=FINETUNE_LR * job.training.lr))
    return module, _taught(job, evaluator, trial, module), lesson


def _taught(job: Job, evaluator: NetworkEvaluator, trial: Trial, module: nn.Module) -> Objective:
    """Distillation from the supernet's largest network if that is better than the student, else the labels alone."""
    student, largest = at_resolution(module, resolution_of(trial.architecture)), job.space.largest()
    teacher, side = evaluator.deliver(largest), resolution_of(largest)
    if accuracy(teacher, job.data.val, job.data, side) <= trial.scores[VAL_ACCURACY]:
        log("the supernet's largest network is no better than the one that is delivered, and does not teach it")
        return classification(student, job.settings.smoothing)
    return distillation(student, at_resolution(teacher, side), Distillation(smoothing=job.settings.smoothing))


def write_verified(job: Job, run: RunDir, arch: Architecture, module: nn.Module, folder: Path) -> dict[str, Any]:
    """Write the files of `folder`, reload, recount and time them; returns and writes the content of verify.json."""
    images = verification_images(job, resolution_of(arch))
    write_files(folder, module.eval(), _described(run, arch), images[:1])
    inputs = VerifyInputs(
        folder=folder,
        module=module,
        rebuild=lambda: job.space.network(arch),
        images=images,
        plan_cost=job.cost(arch),
        budgets=job.budgets,
        latency=file_latency(job.bench, folder, images[:1]),
        recount=recount,
    )
    verdict = verify(inputs)
    files.replace(folder / VERIFY, files.to_json(verdict))
    return verdict


def _described(run: RunDir, arch: Architecture) -> dict[str, Any]:
    """The content of architecture.json."""
    data = near_values(run.config["data"], run.path / BEST)
    return {**arch.to_json(), "key": arch.key, "definition": run.config["space"], "data": data}


def verification_images(job: Job, resolution: int) -> Tensor:
    """Up to 256 normalized validation images on the CPU."""
    return comparison_images(job.data, VERIFIED_IMAGES, (job.data.channels, resolution, resolution))


# -- what summaries are made of; those of `nas prune` and `nas quantize` too


def header(job: Job | PruneJob | QuantizeJob, command: str) -> dict[str, Any]:
    """What every summary begins with."""
    return {
        "command": command,
        "seed": job.settings.seed,
        "versions": versions(),
        "device": {"type": job.device.type, "name": device_name(job.device)},
        "data": {"name": job.data.name, "fingerprint": job.data.fingerprint} if job.data else {},
    }


def delivered_row(arch: Architecture, verdict: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """What a summary has of a delivered network: the budgets by what was verified, and its metrics."""
    metrics = {**{name: metric["value"] for name, metric in verdict["metrics"].items()}, **scores}
    return {
        "budget": verdict["budgets"],
        "verified": verdict["ok"],
        "best": {"key": arch.key, "architecture": arch.to_json(), "metrics": metrics},
    }


def network_row(trial: Trial) -> dict[str, object]:
    """A network of the front as summary.json has it."""
    metrics = {**trial.cost.values(), **trial.scores}
    return {"key": trial.architecture.key, "architecture": trial.architecture.to_json(), "metrics": metrics}


def write_card(folder: Path, summary: Mapping[str, Any], config: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
    """Write the model card of a delivered network."""
    card = without_paths(model_card(summary, config, verdict), [config, summary.get("original")], folder)
    files.replace(folder / "README.md", files.utf8(card))
