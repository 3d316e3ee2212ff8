"""`nas diff`: what changed between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def diff(
    a: Annotated[Path, typer.Argument(metavar="RUN-A", help="Run directory.")],
    b: Annotated[Path, typer.Argument(metavar="RUN-B", help="Run directory that is compared with it.")],
    json: opt.Json = False,
) -> None:
    """Tell what changed from one run to another: settings, versions, device, data, budgets, results, front, architecture.

    Only what differs is shown. Runs may be finished, running or interrupted, on other data and of other commands; what then
    cannot be compared is said. The hypervolume of a front is the share that its networks dominate of the box from nothing to
    1.1 times the worst values of both fronts.

    \b
    Examples:
      nas diff runs/search-1 runs/search-2
      nas diff runs/search-1 runs/prune-1 --json

    Exit status: 0 compared, whatever differs, 2 bad input.
    """
    from nas.cli.diffing import run_diff  # only when there is work

    run_diff(a, b, json)
