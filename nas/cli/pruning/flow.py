"""`nas prune` from end to end: original -> cut -> recalibrate -> fine-tune -> verify -> report, each stage resumable."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import typer

from nas.cli.progress import log
from nas.cli.pruning.checking import check_given, check_settings
from nas.cli.pruning.clock import Clock
from nas.cli.pruning.cutting import Workshop
from nas.cli.pruning.deliver import deliver_pruned
from nas.cli.pruning.job import PruneJob, make_prune_job, prune_configuration
from nas.cli.pruning.settings import PruneSettings
from nas.cli.pruning.stages import trials_of
from nas.cli.running import concluded, working
from nas.cli.scoring import shown
from nas.cli.settings import read
from nas.cli.telling import tell_data
from nas.errors import InvalidSetting
from nas.report.words import show
from nas.rundir import RunDir


def run_prune(ctx: typer.Context) -> None:
    """The whole of `nas prune`."""
    settings, resumed = read(ctx, "prune", PruneSettings)
    if resumed is None:
        check_given(settings, ctx.params)
    prune_in(ctx.params.get("out"), settings, resumed, ctx.params["json"])


def prune_in(out: Path | None, settings: PruneSettings, resumed: Path | None, as_json: bool) -> None:
    """Prune in a run directory, a new one or one that is gone on with. Raises VerificationFailed, and what `nas prune` does."""
    if not settings.network:
        raise InvalidSetting("no network was given; name one: nas prune cifar-resnet56 --weights FILE --budget 50%")
    check_settings(settings)
    prune_job_in(out, make_prune_job(settings), resumed, as_json)


def prune_job_in(out: Path | None, job: PruneJob, resumed: Path | None, as_json: bool) -> None:
    """As `prune_in`, for a job that is made already."""
    began = time.monotonic()
    with working(prune_configuration(job), resumed, out) as run:
        describe(job)
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock(job, Path(folder))
            trials = trials_of(job, run, Workshop(job, clock))
            summary = deliver_pruned(job, run, clock, trials)
        summary["seconds"] = round(time.monotonic() - began, 1)
        concluded(run, summary, announce, as_json)


def describe(job: PruneJob) -> None:
    """Say what the work is about, and what is doubtful in it."""
    shape = "x".join(map(str, job.original.shape))
    data = job.data
    images = f"{data.name}: {len(data.train)} training and {len(data.val)} validation images" if data else "no data"
    log(f"{job.original.name} for images of {shape}; {images}; timed on {job.bench.target}")
    if data is not None:
        tell_data(data, job.augmentation if job.settings.trains else None, job.settings.flip)
    if not job.original.trained:
        log("warning: no --weights were given, so a network with random weights is cut")
    if data is None:
        log("warning: no --data were given: nothing is fine-tuned, and accuracies are not known")


def announce(run: RunDir, summary: dict[str, Any]) -> None:
    """Say what was found, beside the original."""
    before, after = summary["original"]["metrics"], summary["best"]["metrics"]
    names = [n for n in ("macs", "params", "latency_ms", "val_accuracy", "test_accuracy") if n in before and n in after]
    log(f"network {summary['best']['key']}, from {summary['original']['name']}:")
    for name in names:
        part = "" if name.endswith("accuracy") else f"  ({after[name] / before[name]:.1%})"
        label = {"macs": "multiply-adds", "params": "parameters", "latency_ms": "latency"}.get(name, name.replace("_", " "))
        log(f"  {label:<14} {shown(summary['original'], name)} -> {shown(summary['best'], name)}{part}")
    if "zero_share" in after:
        zeros, size = after["zero_share"], show("size_bytes", after["compressed_bytes"])
        log(f"  {'zeros':<14} {zeros:.1%} of all parameters; compressed {size} of {show('size_bytes', after['size_bytes'])}")
    for reason in summary["left_out"]:
        log(f"  left out: {reason}")
    for row in summary["budget"]:
        log(f"  {row['text']:<14} {'kept' if row['ok'] else 'BROKEN'}")
    if summary.get("slower"):
        log(f"warning: {summary['slower']}")
