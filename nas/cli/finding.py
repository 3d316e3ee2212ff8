"""From a job to its delivered network: compare networks, train the best one to its end, verify it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.budget import format_value
from nas.cli.deciding import CHOSEN
from nas.cli.deliver import deliver
from nas.cli.job import Job
from nas.cli.latency import TABLE
from nas.cli.planning import Clock, record, tell
from nas.cli.progress import log
from nas.cli.stages import evaluator_of, searched
from nas.cli.telling import tell_data
from nas.cli.timing import timed
from nas.latency.table import table_text
from nas.numbers import counted
from nas.rundir import RunDir
from nas.weights import to_bytes


def found(job: Job, run: RunDir, resumed: Path | None, clock: Clock) -> dict[str, Any]:
    """Compare the networks of a job and deliver the best one; returns the summary without its seconds."""
    start(job, run, resumed, clock)
    with clock.stage(run, "training the supernet" if job.plan.shared else "preparing"):
        evaluator = evaluator_of(job, run)
    with clock.stage(run, "comparing networks"):
        job, trials = timed(job, run, evaluator, searched(job, run, evaluator))
    return deliver(job, run, evaluator, trials, clock)


def start(job: Job, run: RunDir, resumed: Path | None, clock: Clock) -> None:
    """Keep what a later process needs to go on, and say what the work is about."""
    if resumed:
        clock.resume(run)
    else:
        record(run, "choosing the space", clock.elapsed())
    if not resumed and job.own_latency is not None:
        run.write_text(TABLE, table_text(job.own_latency.predictor.table))
    if not resumed and job.decision.weights:
        run.save_checkpoint(CHOSEN, to_bytes(job.decision.weights), {"step": 0}, durable=True)
    log(describe(job))
    log(plan_line(job))
    tell_data(job.data, job.augmentation, job.settings.flip)


def plan_line(job: Job) -> str:
    """What will be done with the time."""
    plan = job.plan
    compared = "a supernet is trained and its networks are compared" if plan.shared else "each network is trained alone"
    total = f"--time {tell(plan.seconds)}" if plan.seconds else f"about {tell(plan.estimate)} on this machine; --time sets it"
    last = "for the rest of the time" if plan.final_steps is None else f"for {plan.final_steps} steps"
    return f"plan ({total}): {compared}; the best one is trained alone {last}"


def describe(job: Job) -> str:
    """One line on space and data."""
    low, high = (job.cost(a).values()["macs"] for a in (job.space.smallest(), job.space.largest()))
    span = f"{format_value('macs', low)} to {format_value('macs', high)} (multiply-adds)"
    data = f"{job.data.name}: {len(job.data.train)} training and {len(job.data.val)} validation images"
    return f"space {job.space.name}, {counted(job.space.size())} networks of {span}; {data} of {job.data.resolution} pixels"
