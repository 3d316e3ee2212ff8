"""`nas quantize` from end to end: original -> calibrate -> round -> train on -> verify -> report, each stage resumable."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import typer

from nas.accuracy import with_error
from nas.cli.progress import log
from nas.cli.quantizing.clock import FASTER, Clock
from nas.cli.quantizing.deliver import deliver_quantized
from nas.cli.quantizing.job import QuantizeJob, check_given, check_settings, make_quantize_job, quantize_configuration
from nas.cli.quantizing.settings import QuantizeSettings
from nas.cli.quantizing.stages import trials_of
from nas.cli.quantizing.where import lines_of
from nas.cli.running import concluded, was_busy, working
from nas.cli.settings import read
from nas.cli.telling import tell_data
from nas.cost.counting import count
from nas.report.words import show
from nas.rundir import RunDir


def run_quantize(ctx: typer.Context) -> None:
    """The whole of `nas quantize`."""
    settings, resumed = read(ctx, "quantize", QuantizeSettings)
    if resumed is None:
        check_given(settings, ctx.params)
    quantize_in(ctx.params.get("out"), settings, resumed, ctx.params["json"])


def quantize_in(out: Path | None, settings: QuantizeSettings, resumed: Path | None, as_json: bool) -> None:
    """Quantize in a run directory, a new one or one that is gone on with. Raises VerificationFailed, and as the command."""
    began = time.monotonic()
    check_settings(settings)
    job = make_quantize_job(settings)
    with working(quantize_configuration(job), resumed, out) as run:
        describe(job)
        with tempfile.TemporaryDirectory() as folder:
            clock = Clock(job, Path(folder))
            summary = deliver_quantized(job, run, clock, trials_of(job, run, clock))
        summary["seconds"] = round(time.monotonic() - began, 1)
        concluded(run, summary, announce, as_json)


def describe(job: QuantizeJob) -> None:
    """Say what the work is about, and what is doubtful in it."""
    shape = "x".join(map(str, job.original.shape))
    log(f"{job.original.name} for images of {shape}, {len(job.network.layers)} layers; timed on {job.bench.target}")
    if job.data is not None:
        tell_data(job.data, job.augmentation if job.settings.trains else None, job.settings.flip)
    if not job.original.trained:
        log("warning: no --weights were given, so a network with random weights is quantized")
    if uncounted := count(job.original.plan).uncounted:
        log(f"warning: the cost of {', '.join(uncounted)} is not known, so that what is handed over cannot be verified")
    if job.data is None:
        log("warning: no --data were given: ranges are calibrated on noise, good for timing alone")


def _shown(summary: dict[str, Any], name: str, value: float) -> str:
    images = summary.get("scores", {}).get(name, {}).get("images")
    return with_error(value, images, 1) if images else show(name, value)


def announce(run: RunDir, summary: dict[str, Any]) -> None:
    """Say what was found: the precisions side by side, then what costs the time."""
    rows = summary["quantization"]["precisions"]
    first = rows[0]["latency_ms"]
    log(f"network {summary['best']['key']}, from {summary['original']['name']}:")
    for row in rows:
        told = [_shown(summary, n, row[n]) for n in ("test_accuracy", "size_bytes", "latency_ms") if row[n] is not None]
        if row["latency_ms"] and first and row is not rows[0]:
            told.append(f"{first / row['latency_ms']:.2f}x as fast")
        told += ["simulated"] if row["simulated"] else []
        log(f"  {row['precision']:<10} {', '.join(told) or row['note']}")
    for text in lines_of(summary["quantization"]["where"]):
        log(f"  {text}")
    for row in summary["budget"]:
        log(f"  {row['text']:<10} {'kept' if row['ok'] else 'BROKEN'}, with {show(row['metric'], row['value'])}")
    last = rows[-1]["latency_ms"]
    if first and last and last > FASTER * first and not was_busy(run, summary):
        known = "; most of its time takes:" if summary["quantization"]["costly"] else ""
        log(f"warning: {rows[-1]['precision']} is not faster than fp32 in this runtime on this machine{known}")
        for row in summary["quantization"]["costly"]:
            log(f"  {row['share']:>6.1%}  {row['layer']}{': ' + row['reason'] if row['reason'] else ''}")
