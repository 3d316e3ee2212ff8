"""`nas search` and `nas train` from end to end: train -> search -> deliver -> report, each stage resumable."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from shlex import quote

import typer

from nas.accuracy import with_error
from nas.budget import format_value
from nas.cli import elapsed
from nas.cli.deliver import deliver, header
from nas.cli.job import Job, configuration, make_job
from nas.cli.latency import TABLE
from nas.cli.progress import log
from nas.cli.running import concluded, working
from nas.cli.settings import Settings, read
from nas.cli.stages import searched, trained_supernet
from nas.cli.telling import tell_data
from nas.cli.timing import timed
from nas.errors import InvalidBudget, InvalidSetting, not_known
from nas.evaluation.supernet import SupernetEvaluator
from nas.latency.table import table_text
from nas.numbers import counted
from nas.rundir import RunDir
from nas.search import SEARCHERS


def run_search(ctx: typer.Context) -> None:
    """The whole of `nas search`."""
    began = time.monotonic()
    settings, resumed = read(ctx, "search", Settings)
    if not settings.budget:
        raise InvalidBudget("no --budget was given; say what the network may cost, for example --budget 3MFLOPs")
    if settings.searcher not in SEARCHERS:
        raise InvalidSetting(f"--searcher {not_known(settings.searcher, SEARCHERS)}")
    job = make_job(settings, resumed)
    job.problem.check()
    with working_on(job, resumed, ctx, "search") as run:
        start(job, run, resumed)
        supernet = trained_supernet(job, run)
        evaluator = SupernetEvaluator(supernet, job.data, settings.seed)
        job, trials = timed(job, run, evaluator, searched(job, run, evaluator))
        summary = deliver(job, run, evaluator, trials)
        summary["seconds"] = round(time.monotonic() - began, 1)
        concluded(run, summary, announce, ctx.params["json"])


def run_train(ctx: typer.Context) -> None:
    """The whole of `nas train`."""
    began = time.monotonic()
    settings, resumed = read(ctx, "train", Settings)
    job = make_job(settings, resumed)
    with working_on(job, resumed, ctx, "train") as run:
        start(job, run, resumed)
        evaluator = SupernetEvaluator(trained_supernet(job, run), job.data, settings.seed)
        ends = {"largest": job.space.largest(), "smallest": job.space.smallest()}
        rows = {name: {**job.cost(arch).values(), **evaluator(arch)} for name, arch in ends.items()}
        summary = {**header(job, "train"), **rows, "seconds": elapsed.total(run, time.monotonic() - began)}
        run.write_json("summary.json", summary)
        elapsed.end(run)
        for name, row in rows.items():
            score = with_error(row["val_accuracy"], len(job.data.val))
            log(f"{name}: {format_value('macs', row['macs'])} (multiply-adds), {score} validation")
        log(f"supernet in {run.path}; search it with: nas search --budget ... --supernet {quote(str(run.path))}")
        if ctx.params["json"]:
            print(json.dumps(summary))


def working_on(job: Job, resumed: Path | None, ctx: typer.Context, command: str) -> AbstractContextManager[RunDir]:
    """The run directory of a job."""
    return working(configuration(job, command), resumed, ctx.params.get("out"))


def start(job: Job, run: RunDir, resumed: Path | None) -> None:
    """Keep what a later process needs to go on, and say what the work is about."""
    if not resumed and job.own_latency is not None:
        run.write_text(TABLE, table_text(job.own_latency.predictor.table))
    log(describe(job))
    tell_data(job.data, job.augmentation, job.settings.flip)


def describe(job: Job) -> str:
    """One line on space and data."""
    low, high = (job.cost(a).values()["macs"] for a in (job.space.smallest(), job.space.largest()))
    span = f"{format_value('macs', low)} to {format_value('macs', high)} (multiply-adds)"
    data = f"{job.data.name}: {len(job.data.train)} training and {len(job.data.val)} validation images"
    return f"space {job.space.name}, {counted(job.space.size())} networks of {span}; {data} of {job.data.resolution} pixels"


def announce(run: RunDir, summary: dict) -> None:
    """Say what was found."""
    metrics, images = summary["best"]["metrics"], {name: row["images"] for name, row in summary["scores"].items()}
    verdicts = (f"{row['text']} {'kept' if row['ok'] else 'BROKEN'}" for row in summary["budget"])
    log(
        f"best network {summary['best']['key']}: {format_value('macs', metrics['macs'])} (multiply-adds), "
        f"{with_error(metrics['val_accuracy'], images['val_accuracy'])} validation, "
        f"{with_error(metrics['test_accuracy'], images['test_accuracy'])} test; {', '.join(verdicts)}"
    )
