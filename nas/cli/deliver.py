"""From trials to the network that is handed over: extract, fine-tune, export, verify, describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
from torch import Tensor

from compress.export import write_files
from compress.verify import VERDICT, VerifyInputs, verify
from nas import files
from nas.architecture import Architecture
from nas.cli import integers
from nas.cli.checking import comparison_images, file_latency
from nas.cli.job import Job, versions
from nas.cli.progress import log
from nas.cli.scoring import scores_row
from nas.cli.stages import Course, fit
from nas.cost.recount import recount
from nas.errors import InfeasibleBudget
from nas.evaluation.answers import answers_of
from nas.evaluation.supernet import SupernetEvaluator, accuracy, calibrate, resolution_of
from nas.latency.machine import device_name
from nas.report.card import model_card
from nas.report.latency import agreement, read_timings
from nas.report.portable import near_values, without_paths
from nas.rundir import RunDir
from nas.search.select import best, front, least_excess
from nas.training.loop import Checkpoints
from nas.training.objectives import Distillation, at_resolution, distillation
from nas.trial import Trial

if TYPE_CHECKING:
    from nas.cli.pruning.job import PruneJob
    from nas.cli.quantizing.job import QuantizeJob

BEST, VERIFY = "best", VERDICT
VERIFIED_IMAGES = 256
# of the supernet's peak learning rate: fine-tuning starts from trained weights, which the full rate would disturb
FINETUNE_LR = 0.3


def deliver(job: Job, run: RunDir, evaluator: SupernetEvaluator, trials: Sequence[Trial]) -> dict[str, Any]:
    """Write and verify best/, and return the summary. Test data are read here, once."""
    trial, nondominated = _chosen(job, trials)
    folder = run.path / BEST
    handed, verdict = hand_over(job, run, evaluator, trial, folder, Checkpoints(run, "finetune"))
    summary = {
        **header(job, "search"),
        **handed,
        "front": [network_row(t) for t in nondominated],
        "trials": len(trials),
    }
    if timings := read_timings(run):
        summary["latency"] = agreement(timings).to_json()
    write_card(folder, summary, run.config, verdict)
    return summary


def hand_over(
    job: Job, run: RunDir, evaluator: SupernetEvaluator, trial: Trial, folder: Path, checkpoints: Checkpoints
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Extract, fine-tune where that was asked for, write the files of `folder` and verify them. Test data are read here.

    Returns what the summary has of it, and the content of verify.json; `checkpoints` are those of the fine-tuning.
    """
    arch = trial.architecture
    module, scores = evaluator.deliver(arch), {"val_accuracy": trial.scores["val_accuracy"]}
    if job.settings.finetune_epochs:
        tuned = finetuned(job, checkpoints, evaluator, arch, evaluator.deliver(arch))
        reached = accuracy(tuned, job.data.val, job.data, resolution_of(arch))
        if reached >= scores["val_accuracy"]:
            module, scores = tuned, {"val_accuracy": reached}
        else:
            log(f"fine-tuning made it worse ({reached:.2%} validation): the network is delivered as it was searched")
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


def finetuned(
    job: Job, checkpoints: Checkpoints, evaluator: SupernetEvaluator, arch: Architecture, module: nn.Module
) -> nn.Module:
    """Train a network alone, distilled from the largest, and recalibrate its norms."""
    config = replace(job.training, epochs=job.settings.finetune_epochs, lr=FINETUNE_LR * job.training.lr)
    largest = job.space.largest()
    student = at_resolution(module, resolution_of(arch))
    teacher = at_resolution(evaluator.deliver(largest), resolution_of(largest))
    objective = distillation(student, teacher, Distillation(smoothing=job.settings.smoothing))
    fit("fine-tuning", module, objective, Course(job.data, job.augmentation, config), checkpoints)
    calibrate(module, job.data, resolution_of(arch), job.settings.seed)
    return module


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
