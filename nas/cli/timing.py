"""A budget in ms is kept by the clock: time the front, fit the predictor to it, and search on where need be."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from compress.export import write_format
from nas.architecture import Architecture
from nas.budget import Metric, check, format_value
from nas.cli import integers
from nas.cli.job import Job
from nas.cli.latency import LATENCY
from nas.cli.progress import bar, log
from nas.cli.stages import Part, searched
from nas.errors import InfeasibleBudget
from nas.evaluation import NetworkEvaluator
from nas.evaluation.supernet import resolution_of
from nas.report.latency import LOG
from nas.rundir import RunDir
from nas.runtimes import named
from nas.search.select import best, evaluated, front, least_excess
from nas.torch_seeding import generator
from nas.trial import Trial

REFITS = 3
MOST_NETWORKS = 20
FEWEST_TRIALS, TRIALS_SHARE = 10, 4  # of a search that goes on
FORMATS = {".onnx": "onnx", ".pt2": "pt2"}


def timed(job: Job, run: RunDir, evaluator: NetworkEvaluator, trials: list[Trial]) -> tuple[Job, list[Trial]]:
    """Time networks and search on until the best one is known by the clock, at most 1 + REFITS times.

    Returns the job with the fitted predictor, and all trials with what they cost by it. Where no budget is in ms, nothing
    is done.
    """
    if job.own_latency is None:
        return job, trials
    for attempt in range(REFITS + 1):
        job = clocked(job, run, evaluator, trials, attempt)
        trials = [replace(trial, cost=job.cost(trial.architecture)) for trial in trials]
        try:
            if _is_timed(job, best(trials, job.problem)):
                break
        except InfeasibleBudget:
            if attempt == REFITS or check(job.problem.budgets, job.problem.smallest_cost):
                break  # nor does the smallest network keep it, by what is known now
            log("by the clock no network keeps the budget: the search goes on with the predictor fitted to what was measured")
            more = searched(job, run, evaluator, _next_part(job, attempt, trials))
            trials = trials + [replace(trial, number=trial.number + len(trials)) for trial in more]
    return job, trials


def _is_timed(job: Job, trial: Trial) -> bool:
    return job.own_latency is not None and trial.architecture.key in job.own_latency.measured


def clocked(job: Job, run: RunDir, evaluator: NetworkEvaluator, trials: Sequence[Trial], attempt: int) -> Job:
    """Time the front, note it in the run, and fit the predictor to it."""
    model = job.own_latency
    assert model is not None
    lines = [line for line in run.read_lines(LOG) if line["attempt"] == attempt]
    known = {*model.measured, *(line["key"] for line in lines)}
    chosen = [trial.architecture for trial in _worth_timing(job, trials) if trial.architecture.key not in known]
    for arch, metric in zip(chosen, _timings(job, evaluator, chosen), strict=True):
        predicted = model.predictor.predict(job.space.plan(arch)).latency
        row: dict[str, Any] = {"attempt": attempt, "trials": len(trials), "key": arch.key, "architecture": arch.to_json()}
        row |= {"predicted_ms": predicted.value if predicted else None, "measured_ms": metric.value}
        run.append_line(LOG, {**row, "spread_ms": metric.spread, "context": metric.context})
    lines = [line for line in run.read_lines(LOG) if line["attempt"] == attempt]
    measured = {n["key"]: Metric(n["measured_ms"], "ms", "measured", n["spread_ms"], n["context"]) for n in lines}
    plans = {line["key"]: job.space.plan(job.space.from_json(line["architecture"])) for line in lines}
    models = tuple(m.refitted(plans, measured) if m is model else m for m in job.models)
    return replace(job, models=models)


def _worth_timing(job: Job, trials: Sequence[Trial]) -> list[Trial]:
    """The best network and those of the front; where the predictor leaves none, those that are nearest to the budget."""
    try:
        ranked = [best(trials, job.problem), *front(trials, job.problem)[::-1]]
    except InfeasibleBudget:
        ranked = least_excess(trials, job.problem)[: MOST_NETWORKS // 4]
    return list({trial.architecture.key: trial for trial in ranked}.values())[:MOST_NETWORKS]


def _timings(job: Job, evaluator: NetworkEvaluator, archs: Sequence[Architecture]) -> list[Metric]:
    """Export networks, time the files side by side in the target runtime, and delete them."""
    if not archs:
        return []
    runtime = named(job.bench.name)
    with tempfile.TemporaryDirectory() as folder, bar("exporting", len(archs)) as shown:
        examples = {}
        for number, arch in enumerate(archs, 1):
            side = resolution_of(arch)
            image = torch.zeros(job.settings.batch, job.data.channels, side, side)
            module = evaluator.plain(arch).eval().cpu().to(memory_format=torch.contiguous_format)
            example = torch.randn(image.shape, generator=generator(0, "images"))
            if integers.wanted(job):
                module = integers.for_timing(module, example)
            path = Path(folder) / f"{arch.key}{runtime.suffix}"
            write_format(FORMATS[runtime.suffix], module, image, path)
            examples[path] = example
            shown.update(number)
        log(f"timing {len(archs)} networks of the front on {job.bench.target}")
        timings = job.bench.time_files(examples)
    context = str(job.bench.target)
    found = [replace(t.metric, context=f"{context}; {t.metric.context}") for t in (timings[path] for path in examples)]
    fastest, slowest = (format_value(LATENCY, end(m.value for m in found)) for end in (min, max))
    log(f"measured {fastest} to {slowest}")
    return found


def _next_part(job: Job, attempt: int, trials: Sequence[Trial]) -> Part:
    known = {trial.architecture.key: trial.scores for trial in evaluated(trials)}
    return Part(attempt + 1, len(trials), max(FEWEST_TRIALS, job.plan.trials // TRIALS_SHARE), known)
