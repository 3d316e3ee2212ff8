"""`nas watch`: look at a run while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.errors import guarded


@guarded
def watch(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    once: Annotated[bool, typer.Option("--once", help="Print how the run is now, and end.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write what is recorded as event files into RUN/tensorboard.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print how the run is now as one JSON object on stdout, and end.")
    ] = False,
) -> None:
    """Show a run while it goes on: its stage, trials, the best network so far, the front, the last records.

    Ends when the run ends or is interrupted, or on Ctrl-C, which does not touch the run. The run directory is only read, never
    locked. Without a terminal, a line is printed now and then. Event files of --tensorboard are written anew each time from
    what the run has recorded: losses and learning rates of trainings, costs and scores of trials, predicted and measured times.

    \b
    Examples:
      nas watch runs/search-1
      nas watch runs/search-1 --once
      nas watch runs/search-1 --tensorboard &
      tensorboard --logdir runs/search-1/tensorboard

    Exit status: 0 the run has ended or was looked at, 2 bad input.
    """
    from nas.cli.watching import Wanted, run_watch  # only when there is work

    run_watch(Wanted(run, once or json, every, tensorboard), json)
