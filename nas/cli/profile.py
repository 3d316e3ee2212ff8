"""`nas profile`: measure a latency table of this device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def profile(  # noqa: PLR0913 - the options of a command are its parameters
    ctx: typer.Context,
    space: opt.Space = "mobilenet",
    data: Annotated[
        str, typer.Option(help="Shape of the images: digits-shape, cifar10-shape, imagenet-shape, ..., or CxRxCLASSES.")
    ] = "cifar10-shape",
    resolution: opt.Resolution = None,
    budget: opt.Budgets = None,
    set: opt.Set = None,
    supernet: Annotated[Path | None, typer.Option(help="Run directory whose space is profiled.")] = None,
    runtime: opt.Runtime = None,
    device: opt.Device = "cpu",
    precision: opt.TargetPrecision = "fp32",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the timed network.")] = 1,
    batch: opt.Batch = 1,
    out: Annotated[Path | None, typer.Option(help="File of the table.", show_default="one a target, in your cache")] = None,
    list: Annotated[bool, typer.Option("--list", help="List the tables that are known.")] = False,
    json: opt.Json = False,
) -> None:
    """Measure a latency table: the time of every block that networks of a space can have, on this device.

    Interrupted, it goes on where it was when started again. The table is found again by `nas search --budget 2ms` and
    `nas cost`.

    \b
    Examples:
      nas profile --space mobilenet --data cifar10-shape
      nas profile --space resnet --resolution 96 --threads 2
      nas profile --runtime torch --device cuda --precision fp16 --batch 32
      nas profile --list
    """
    from nas.cli.profiling import run_list, run_profile  # torch and all: only when there is work

    (run_list if list else run_profile)(ctx)
