"""`nas search` and `nas train` from end to end: train -> search -> deliver -> report, each stage resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import torch
import typer

from nas.budget import format_value
from nas.cli.deliver import deliver, header
from nas.cli.errors import Interrupted
from nas.cli.job import Job, configuration, make_job
from nas.cli.latency import TABLE
from nas.cli.progress import log
from nas.cli.settings import read
from nas.cli.stages import searched, trained_supernet
from nas.cli.timing import timed
from nas.errors import InvalidBudget, InvalidSetting, VerificationFailed
from nas.evaluation.supernet import SupernetEvaluator
from nas.latency.table import table_text
from nas.report.write import write_report
from nas.rundir import RunDir
from nas.search import SEARCHERS


def run_search(ctx: typer.Context) -> None:
    """The whole of `nas search`."""
    start = time.monotonic()
    settings, resumed = read(ctx, "search")
    if not settings.budget:
        raise InvalidBudget("no --budget was given; say what the network may cost, for example --budget 3MFLOPs")
    if settings.searcher not in SEARCHERS:
        raise InvalidSetting(f"--searcher {settings.searcher!r} is not known; choose one of {', '.join(SEARCHERS)}")
    job = make_job(settings, resumed)
    job.problem.check()
    with working(job, resumed, ctx, "search") as run:
        supernet = trained_supernet(job, run)
        evaluator = SupernetEvaluator(supernet, job.data, settings.seed)
        job, trials = timed(job, run, evaluator, searched(job, run, evaluator))
        summary = deliver(job, run, evaluator, trials)
        summary["seconds"] = round(time.monotonic() - start, 1)
        run.write_json("summary.json", summary)
        write_report(run)
        announce(run, summary)
        if ctx.params["json"]:
            print(json.dumps(summary))
        if not summary["verified"]:
            raise VerificationFailed(f"the network in {run.path}/best does not hold what it should: see best/verify.json")


def run_train(ctx: typer.Context) -> None:
    """The whole of `nas train`."""
    start = time.monotonic()
    settings, resumed = read(ctx, "train")
    job = make_job(settings, resumed)
    with working(job, resumed, ctx, "train") as run:
        evaluator = SupernetEvaluator(trained_supernet(job, run), job.data, settings.seed)
        ends = {"largest": job.space.largest(), "smallest": job.space.smallest()}
        rows = {name: {**job.cost(arch).values(), **evaluator(arch)} for name, arch in ends.items()}
        summary = {**header(job, "train"), **rows, "seconds": round(time.monotonic() - start, 1)}
        run.write_json("summary.json", summary)
        for name, row in rows.items():
            log(f"{name}: {format_value('macs', row['macs'])} (multiply-adds), {row['val_accuracy']:.2%} validation")
        log(f"supernet in {run.path}; search it with: nas search --budget ... --supernet {quote(str(run.path))}")
        if ctx.params["json"]:
            print(json.dumps(summary))


@contextmanager
def working(job: Job, resumed: Path | None, ctx: typer.Context, command: str) -> Iterator[RunDir]:
    """Open or create the run directory, and say how to resume when interrupted."""
    config = configuration(job, command)
    with RunDir.open(resumed) if resumed else RunDir.create(command, config, ctx.params.get("out")) as run:
        if resumed:
            _refuse_changes(run, config)
        elif job.own_latency is not None:
            run.write_text(TABLE, table_text(job.own_latency.predictor.table))
        log(f"run directory {run.path}")
        log(describe(job))
        try:
            yield run
        except torch.OutOfMemoryError as error:
            raise InvalidSetting(
                f"the memory of {job.device} ran out ({error}); start again with a lower --batch-size"
            ) from None
        except KeyboardInterrupt:
            raise Interrupted(f"resume with: nas {command} --resume --out {quote(str(run.path))}") from None


def _refuse_changes(run: RunDir, config: dict[str, Any]) -> None:
    """Raise InvalidSetting if the data or the space are no longer what the run was started with."""
    for part in ("data", "space"):
        if run.config[part] != config[part]:
            raise InvalidSetting(
                f"the {part} of {run.path} changed since it was started ({config[part]['name']}); start a new run"
            )


def describe(job: Job) -> str:
    """One line on space and data."""
    low, high = (job.cost(a).values()["macs"] for a in (job.space.smallest(), job.space.largest()))
    span = f"{format_value('macs', low)} to {format_value('macs', high)} (multiply-adds)"
    data = f"{job.data.name}: {len(job.data.train)} training and {len(job.data.val)} validation images"
    return f"space {job.space.name}, {job.space.size():.3g} networks of {span}; {data} of {job.data.resolution} pixels"


def announce(run: RunDir, summary: dict) -> None:
    """Say what was found."""
    metrics = summary["best"]["metrics"]
    verdicts = (f"{row['text']} {'kept' if row['ok'] else 'BROKEN'}" for row in summary["budget"])
    log(
        f"best network {summary['best']['key']}: {format_value('macs', metrics['macs'])} (multiply-adds), "
        f"{metrics['val_accuracy']:.2%} validation, {metrics['test_accuracy']:.2%} test; {', '.join(verdicts)}"
    )
    log(f"files in {run.path}/best, report in {run.path}/report.html")
