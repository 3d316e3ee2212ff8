"""`nas search`, `nas baseline` and `nas train` from end to end: train -> search -> deliver -> report, each stage resumable."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from shlex import quote

import typer

from nas.accuracy import with_error
from nas.budget import format_value
from nas.cli import elapsed
from nas.cli.baselines import baseline_pays, beside, beside_baseline
from nas.cli.deciding import ALONE, SHARED
from nas.cli.deliver import header
from nas.cli.finding import found, start
from nas.cli.job import Job, configuration, make_job, pick_device
from nas.cli.planning import Clock
from nas.cli.progress import log
from nas.cli.running import concluded, working
from nas.cli.settings import Settings, read
from nas.cli.stages import trained_supernet
from nas.errors import InvalidBudget, InvalidSetting, not_known
from nas.evaluation.supernet import SupernetEvaluator
from nas.report.contents import BASELINE
from nas.rundir import RunDir, check_free
from nas.search import SEARCHERS

SEARCH = "search"


def run_search(ctx: typer.Context) -> None:
    """The whole of `nas search`."""
    began = time.monotonic()
    settings, resumed = read(ctx, SEARCH, Settings)
    if settings.searcher not in SEARCHERS:
        raise InvalidSetting(f"--searcher {not_known(settings.searcher, SEARCHERS)}")
    clock = Clock(pick_device(settings.device))
    job = _job(settings, resumed, ctx)
    with working_on(job, resumed, ctx, SEARCH) as run:
        summary = found(job, run, resumed, clock)
        if baseline_pays(job, run):
            summary = beside_baseline(job, run, summary, clock)
        summary["seconds"] = round(time.monotonic() - began, 1)
        concluded(run, summary, announce, ctx.params["json"])


def run_baseline(ctx: typer.Context) -> None:
    """The whole of `nas baseline`."""
    began = time.monotonic()
    settings, resumed = read(ctx, BASELINE, Settings)
    clock = Clock(pick_device(settings.device))
    job = _job(replace(settings, evaluate=ALONE, trials=1), resumed, ctx, plain=True)
    with working_on(job, resumed, ctx, BASELINE) as run:
        summary = found(job, run, resumed, clock)
        summary["seconds"] = round(time.monotonic() - began, 1)
        concluded(run, summary, announce, ctx.params["json"])


def _job(settings: Settings, resumed: Path | None, ctx: typer.Context, plain: bool = False) -> Job:
    if not settings.budget:
        raise InvalidBudget("no --budget was given; say what the network may cost, for example --budget 3MFLOPs")
    if not resumed and ctx.params.get("out"):
        check_free(ctx.params["out"])  # before anything is trained
    job = make_job(settings, resumed, plain)
    job.problem.check()
    return job


def run_train(ctx: typer.Context) -> None:
    """The whole of `nas train`."""
    began = time.monotonic()
    settings, resumed = read(ctx, "train", Settings)
    job, clock = make_job(replace(settings, evaluate=SHARED), resumed), Clock(pick_device(settings.device))
    with working_on(job, resumed, ctx, "train") as run:
        start(job, run, resumed, clock)
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


def announce(run: RunDir, summary: dict) -> None:
    """Say what was found."""
    metrics, images = summary["best"]["metrics"], {name: row["images"] for name, row in summary["scores"].items()}
    if "baseline" in summary:
        log(beside(summary))
    if cheaper := summary.get("cheaper"):
        values = cheaper["metrics"]
        log(
            f"as good within one standard error when they were compared: {format_value('macs', values['macs'])}, "
            f"extract it with: nas extract {quote(str(run.path))} {cheaper['key']}"
        )
    verdicts = (f"{row['text']} {'kept' if row['ok'] else 'BROKEN'}" for row in summary["budget"])
    log(
        f"best network {summary['best']['key']}: {format_value('macs', metrics['macs'])} (multiply-adds), "
        f"{with_error(metrics['val_accuracy'], images['val_accuracy'])} validation, "
        f"{with_error(metrics['test_accuracy'], images['test_accuracy'])} test; {', '.join(verdicts)}"
    )
