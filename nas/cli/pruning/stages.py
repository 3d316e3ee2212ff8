"""From an aim to a trial: cut, recalibrate, fine-tune, evaluate; each stage is kept, so that a run can go on after it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from compress.prune.saved import read_history, read_source, save_pruned
from nas.accuracy import with_error
from nas.architecture import Architecture
from nas.budget import Cost, Metric, format_value
from nas.cli.existing import trial_of
from nas.cli.progress import log
from nas.cli.pruning.clock import SideBySide
from nas.cli.pruning.cutting import Workshop
from nas.cli.pruning.finetuning import finetuned
from nas.cli.pruning.job import Aim, PruneJob
from nas.cli.pruning.methods import Made, method_of, stored_sizes
from nas.cli.sources import NETWORKS, reload
from nas.cost.counting import count
from nas.cost.recount import state_bytes
from nas.cost.trace import trace
from nas.errors import InfeasibleBudget
from nas.evaluation.supernet import calibrate, judge
from nas.rundir import RunDir
from nas.trial import Trial

CUTS, STAGES = "cuts.jsonl", "stages.jsonl"


@dataclass(frozen=True)
class Candidate:
    """A network that was cut for an aim: its name as an architecture, what it costs, and where it is stored."""

    architecture: Architecture
    cost: Cost
    folder: Path


def trials_of(job: PruneJob, run: RunDir, workshop: Workshop) -> list[Trial]:
    """The original as trial 0, then one trial for each aim; those that are recorded are not done again.

    Of several aims, what no cut keeps is recorded as infeasible. Raises InfeasibleBudget if that is all of them.
    """
    done = [trial_of(record) for record in run.trials()]
    for number in range(len(done), 1 + len(job.aims)):
        start = time.monotonic()
        trial = _original_trial(job, workshop) if number == 0 else _trial(job, run, workshop, number)
        trial = replace(trial, seconds=time.monotonic() - start)
        run.append_trial(trial.to_json())
        done.append(trial)
    if all(trial.state == "infeasible" for trial in done[1:]):
        raise InfeasibleBudget(done[-1].error)
    return done


def network_of(run: RunDir, trial: Trial) -> nn.Module:
    """The network of a trial, as it was saved, on the CPU."""
    return reload(run.path / NETWORKS / trial.architecture.key)


def _original_trial(job: PruneJob, workshop: Workshop) -> Trial:
    log(f"original {job.original.name}: evaluating and timing it")
    times = workshop.clock.side_by_side(job.original.module)
    cost = cost_of(job, job.original.module, times.original)
    scores = _scores(job, job.original.module)
    _tell(job, "original", cost, scores)
    return Trial(0, _architecture(job, workshop.subject.widths.full), "complete", cost, scores)


def _trial(job: PruneJob, run: RunDir, workshop: Workshop, number: int) -> Trial:
    aim = job.aims[number - 1]
    try:
        candidate = _candidate(job, run, workshop, number, aim)
    except InfeasibleBudget as error:
        if len(job.aims) == 1 or (number == 1 and job.budgets):  # what was asked for is not left out
            raise
        log(f"warning: {aim.text} is left out: {error}")
        return Trial(number, _architecture(job, {"aim": aim.text}), "infeasible", Cost(), error=str(error))
    scores = _scores_of_stage(run, candidate.architecture.key, "cut")
    if job.epochs:
        scores = _finetuned(job, run, candidate, scores)
    _tell(job, aim.text, candidate.cost, scores)
    return Trial(number, candidate.architecture, "complete", candidate.cost, scores)


# -- cutting


def _candidate(job: PruneJob, run: RunDir, workshop: Workshop, number: int, aim: Aim) -> Candidate:
    """The network of an aim after its cut: as it was recorded, or cut now. Raises InfeasibleBudget, which is recorded, too."""
    record = _known(job, run, number, aim) or _made(job, run, workshop, number, aim)
    if "infeasible" in record:
        raise InfeasibleBudget(record["infeasible"])
    arch = Architecture(record["architecture"]["space"], record["architecture"]["choices"])
    cost = Cost({name: Metric(**metric) for name, metric in record["cost"].items()}, tuple(record["uncounted"]))
    return Candidate(arch, cost, run.path / NETWORKS / arch.key)


def _known(job: PruneJob, run: RunDir, number: int, aim: Aim) -> dict[str, Any] | None:
    """What was recorded of an aim, or of an earlier one that asks for the same."""
    lines = {line["number"]: line for line in run.read_lines(CUTS)}
    same = (before for before in range(1, number) if before in lines and job.aims[before - 1] == aim)
    return lines.get(number) or lines.get(next(same, 0))


def _made(job: PruneJob, run: RunDir, workshop: Workshop, number: int, aim: Aim) -> dict[str, Any]:
    log(f"network {number} of {len(job.aims)}: {aim.text}")
    try:
        made = method_of(job.settings).make(workshop, run, aim)
    except InfeasibleBudget as error:
        run.append_line(CUTS, {"number": number, "infeasible": str(error)})
        raise
    return _recorded(job, run, number, made)


def _recorded(job: PruneJob, run: RunDir, number: int, made: Made) -> dict[str, Any]:
    """Save what was made, evaluate it, and record both; what an earlier aim ended with is that one, trained as it may be."""
    arch = _architecture(job, dict(made.choices))
    known = next((line for line in run.read_lines(CUTS) if line.get("key") == arch.key), None)
    if known is not None:
        log(f"{job.aims[number - 1].text} ends with network {arch.key}, as {job.aims[known['number'] - 1].text} did")
        record = {**known, "number": number}
        run.append_line(CUTS, record)
        return record
    module = made.pruned.module.cpu().to(memory_format=torch.contiguous_format)
    save_pruned(run.path / NETWORKS / arch.key, module, made.source, made.pruned.history)
    cost = cost_of(job, module, _drift_free(run, made.times))
    if not _scores_of_stage(run, arch.key, "cut"):
        scores = _scores(job, module)
        run.append_line(STAGES, {"key": arch.key, "stage": "cut", "scores": scores})
        _tell(job, "cut", cost, scores)
    record = {
        "number": number,
        "key": arch.key,
        "architecture": arch.to_json(),
        "cost": {name: vars(metric) for name, metric in cost.metrics.items()},
        "uncounted": list(cost.uncounted),
        "ratio": made.times.ratio,
    }
    run.append_line(CUTS, record)
    return record


def _drift_free(run: RunDir, times: SideBySide) -> Metric:
    """The time of a cut network as it would have been when the original of trial 0 was timed: the machine's speed drifts."""
    first = run.trials()[0]["cost"]["latency_ms"]["value"]
    factor = first / times.original.value
    spread = None if times.cut.spread is None else times.cut.spread * factor
    context = f"{times.cut.context}; {times.ratio:.3f} of the original's time, measured side by side"
    return replace(times.cut, value=times.cut.value * factor, spread=spread, context=context)


def cost_of(job: PruneJob, module: nn.Module, latency: Metric | None) -> Cost:
    """What a network costs: counted on its trace, its weights weighed as they are stored, its time as it was measured."""
    counted = count(trace(module.eval(), torch.zeros(1, *job.original.shape, device=next(module.parameters()).device)))
    size = replace(counted.metrics["size_bytes"], value=float(state_bytes(module)))
    metrics = {**counted.metrics, "size_bytes": size}
    if job.settings.zeros is not None:
        metrics |= stored_sizes(module)
    return replace(counted, metrics={**metrics, "latency_ms": latency} if latency else metrics)


def _architecture(job: PruneJob, choices: dict[str, Any]) -> Architecture:
    """A cut network as values: the units that each group keeps, and the blocks that were removed."""
    return Architecture(f"prune:{job.original.identity}@1", choices)


# -- training


def _finetuned(job: PruneJob, run: RunDir, candidate: Candidate, before: dict[str, float]) -> dict[str, float]:
    """Fine-tune what was cut, distilled from the original, which sees the same augmented images; keep what is better."""
    assert job.data is not None
    key = candidate.architecture.key
    recorded = _scores_of_stage(run, key, "fine-tuned")
    if recorded:
        return max(before, recorded, key=lambda scores: scores["val_accuracy"])
    student = finetuned(job, run, candidate.folder)
    calibrate(student, job.data, job.data.resolution, job.settings.seed)
    scores = _scores(job, student)
    if scores["val_accuracy"] >= before["val_accuracy"]:
        module = student.cpu().to(memory_format=torch.contiguous_format)
        save_pruned(candidate.folder, module, read_source(candidate.folder), read_history(candidate.folder))
    else:
        reached = with_error(scores["val_accuracy"], len(job.data.val))
        log(f"fine-tuning made it worse ({reached} validation): the network stays as it was cut")
    run.append_line(STAGES, {"key": key, "stage": "fine-tuned", "scores": scores, "epochs": job.epochs})
    return max(before, scores, key=lambda row: row["val_accuracy"])


def _scores(job: PruneJob, module: nn.Module) -> dict[str, float]:
    """Validation accuracy and loss; nothing without data."""
    if job.data is None:
        return {}
    right, loss = judge(module.to(job.device), job.data.val, job.data, job.data.resolution)
    return {"val_accuracy": right, "val_loss": loss}


def _scores_of_stage(run: RunDir, key: str, stage: str) -> dict[str, float]:
    return next((dict(x["scores"]) for x in run.read_lines(STAGES) if (x["key"], x["stage"]) == (key, stage)), {})


def _tell(job: PruneJob, label: str, cost: Cost, scores: dict[str, float]) -> None:
    numbers = [f"{format_value('macs', cost.metrics['macs'].value)} (multiply-adds)"]
    numbers += [format_value("latency_ms", cost.metrics["latency_ms"].value)] if "latency_ms" in cost.metrics else []
    numbers += (
        [f"{with_error(scores['val_accuracy'], len(job.data.val))} validation"] if scores and job.data is not None else []
    )
    log(f"{label}: {', '.join(numbers)}")
