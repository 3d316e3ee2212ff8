"""`nas report`: tables, pictures and a page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def report(run: Annotated[Path, typer.Argument(help="Run directory.")], json: opt.Json = False) -> None:
    """Write the tables, pictures and report.html of a run; finished, running and interrupted ones alike.

    \b
    Example:
      nas report runs/search-1
    """
    from nas.cli.progress import log
    from nas.report.write import write_report  # plotly and matplotlib: only when there is something to draw
    from nas.rundir import RunDir

    files = write_report(RunDir.read(run))
    for file in files:
        log(f"wrote {file}")
    if json:
        from json import dumps

        print(dumps({"command": "report", "files": [str(f) for f in files]}))
