"""`nas verify`: check again what a run has delivered, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def verify(
    run: Annotated[Path, typer.Argument(help="Run directory of a search, a pruning or a quantization, or a chain of them.")],
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Run the exported file on all test images, which needs the data.")
    ] = True,
    data: opt.MovedData = None,
    trust_code: opt.TrustCode = None,
    json: opt.Json = False,
) -> None:
    """Check the delivered network of a run again: reload, recount, retime, re-score.

    Nothing is taken from the run but its files in best/ and what it claimed of them. Where a number no longer holds, the
    difference is shown and the exit status is 4. Times are taken again where this is the machine that the run was timed on.

    \b
    Examples:
      nas verify runs/search-1
      nas verify runs/prune-1 --no-score
    """
    from nas.cli.verifying import run_verify  # torch and all: only when there is work

    run_verify(run, score, json, data)
