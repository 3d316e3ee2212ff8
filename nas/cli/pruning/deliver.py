"""From trials to the pruned network that is handed over: export, verify, describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from compress.export import write_files
from compress.prune.history import History
from compress.prune.saved import HISTORY, SOURCE, read_history, read_source
from compress.verify import VerifyInputs, verify
from nas import files
from nas.budget import Budget, Metric, excess
from nas.cli.checking import comparison_images
from nas.cli.deliver import BEST, VERIFIED_IMAGES, VERIFY, delivered_row, header, network_row, write_card
from nas.cli.progress import log
from nas.cli.pruning.clock import Clock, SideBySide
from nas.cli.pruning.job import PruneJob
from nas.cli.pruning.stages import cost_of, network_of
from nas.cli.scoring import accuracy_of, scores_row
from nas.cli.sources import NETWORKS, rebuilt
from nas.cost.recount import recount
from nas.evaluation.answers import Answers, answers_of
from nas.report.portable import near_values
from nas.rundir import RunDir
from nas.runtimes import named
from nas.trial import Trial, pareto_front

# formats are compared on as many images as so many multiply-adds let through
VERIFIED_WORK, FEWEST = 2e11, 8


@dataclass(frozen=True)
class Stored:
    """The network of a trial, and how it is built again."""

    trial: Trial
    module: nn.Module
    source: Mapping[str, Any]
    history: History


def deliver_pruned(job: PruneJob, run: RunDir, clock: Clock, trials: Sequence[Trial]) -> dict[str, Any]:
    """Write and verify best/, and return the summary. Test data are read here, once."""
    trial, folder = chosen(job, trials), run.path / BEST
    if job.data is not None:
        log("reading the test data, for the original and the delivered network alone")
    original = replace(trials[0], scores={**trials[0].scores, **accuracy_of(tested(job, job.original.module))})
    handed, verdict = hand_over(job, run, clock, trial, folder)
    summary: dict[str, Any] = {
        **header(job, "prune"),
        "original": original_row(job, original, verdict),
        **handed,
        "front": [network_row(t) for t in front_of(job, trials)],
        "trials": len(trials),
        "left_out": [t.error for t in trials if t.state == "infeasible"],
    }
    if slower := slower_words(job, verdict, original, trial):
        summary["slower"] = slower
    write_card(folder, summary, run.config, verdict)
    return summary


def slower_words(job: PruneJob, verdict: Mapping[str, Any], original: Trial, trial: Trial) -> str:
    """That the delivered file is not faster than the original, where it is so; both were timed side by side."""
    timed = verdict["metrics"].get("latency_ms")
    if timed is None:
        return ""
    times = SideBySide(*(Metric(**metric) for metric in (verdict["original"]["latency_ms"], timed)))
    return times.slower(trial.cost.values()["macs"] / original.cost.values()["macs"], job.recipe)


def hand_over(job: PruneJob, run: RunDir, clock: Clock, trial: Trial, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the network of a trial into `folder` and verify it there. Test data are read here.

    Returns what the summary has of it, and the content of verify.json.
    """
    stored = stored_of(job, run, trial)
    test = tested(job, stored.module)
    scores = {**trial.scores, **accuracy_of(test)}
    log("writing and verifying the model files")
    verdict = write_verified(job, run, clock, stored, folder)
    return {**delivered_row(trial.architecture, verdict, scores), **scores_row(job.data, scores, test)}, verdict


def stored_of(job: PruneJob, run: RunDir, trial: Trial) -> Stored:
    """The network of a trial, the original with an empty history."""
    if trial.number == 0:
        return Stored(trial, job.original.module, job.original.source, History())
    folder = run.path / NETWORKS / trial.architecture.key
    return Stored(trial, network_of(run, trial), read_source(folder), read_history(folder))


def tested(job: PruneJob, module: nn.Module) -> Answers | None:
    """What a network answers on the test images; nothing without data."""
    if job.data is None:
        return None
    return answers_of(module.to(job.device), job.data.load_test(), job.data, job.data.resolution)


def original_row(job: PruneJob, original: Trial, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary has of the original, timed beside the delivered file: the machine's speed drifts."""
    metrics = {**original.cost.values(), **original.scores, "latency_ms": verdict["original"]["latency_ms"]["value"]}
    return {"name": job.original.name, "metrics": metrics}


def chosen(job: PruneJob, trials: Sequence[Trial]) -> Trial:
    """The network that is handed over: the most accurate cut one that keeps --budget, and of equal ones the cheapest.

    Without --budget, the smallest one that loses at most --max-drop points; where all lose more, the one that loses least.
    """
    cut = [trial for trial in trials[1:] if trial.state == "complete"]
    budgets = absolute(job.budgets, trials[0])
    if budgets:
        kept = [t for t in cut if not excess(budgets, t.cost)] or cut[:1]
        return min(kept, key=lambda t: (-t.scores.get("val_accuracy", 0.0), t.cost.values()["macs"]))
    before = trials[0].scores.get("val_accuracy", 0.0)
    good = [t for t in cut if t.scores.get("val_accuracy", 0.0) >= before - job.settings.max_drop / 100]
    if good:
        return min(good, key=lambda t: t.cost.values()["macs"])
    log(f"every network of the sweep loses more than {job.settings.max_drop} points: the most accurate one is delivered")
    return max(cut, key=lambda t: t.scores["val_accuracy"])


def absolute(budgets: Sequence[Budget], original: Trial) -> tuple[Budget, ...]:
    """Budgets in numbers, relative ones by what the original costs."""
    return tuple(budget.resolve(original.cost) for budget in budgets)


def front_of(job: PruneJob, trials: Sequence[Trial]) -> list[Trial]:
    """Networks, the original among them, that no other one beats in validation error and in what the budgets limit."""
    metrics = job.objectives or ["macs"]
    complete = [trial for trial in trials if trial.state == "complete"]
    points = [[1 - t.scores.get("val_accuracy", 0.0), *(t.cost.values()[m] for m in metrics)] for t in complete]
    return [complete[i] for i in pareto_front(points)]


def write_verified(job: PruneJob, run: RunDir, clock: Clock, stored: Stored, folder: Path) -> dict[str, Any]:
    """Write the files of `folder`, reload, recount and time them; returns and writes the content of verify.json."""
    module, arch = stored.module.cpu().to(memory_format=torch.contiguous_format), stored.trial.architecture
    images = verification_images(job, stored.trial)
    described = {
        **arch.to_json(),
        "key": arch.key,
        "pruned": stored.source,
        "history": stored.history.to_json(),
        "data": near_values(run.config["data"], folder),
    }
    write_files(folder, module.eval(), described, images[:1])
    files.replace(folder / SOURCE, files.to_json(stored.source))
    files.replace(folder / HISTORY, files.to_json(stored.history.to_json()))
    times = clock.side_by_side(folder / f"model{named(job.bench.name).suffix}")
    # a share of the original's time is judged by what both took side by side
    reference = cost_of(job, job.original.module.cpu(), times.original)
    inputs = VerifyInputs(
        folder=folder,
        module=module,
        rebuild=lambda: rebuilt(folder),
        images=images,
        plan_cost=cost_of(job, module, None),
        budgets=tuple(budget.resolve(reference) for budget in job.budgets),
        latency=times.cut,
        recount=recount,
    )
    verdict = verify(inputs)
    verdict["original"] = {"latency_ms": vars(times.original)}
    files.replace(folder / VERIFY, files.to_json(verdict))
    return verdict


def verification_images(job: PruneJob, trial: Trial) -> Tensor:
    """Normalized validation images on the CPU, or noise where there are no data."""
    wanted = int(max(FEWEST, min(VERIFIED_IMAGES, VERIFIED_WORK / trial.cost.values()["macs"])))
    return comparison_images(job.data, wanted, job.original.shape)
