"""`nas dashboard`: the trials of a run in optuna-dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli.errors import guarded


@guarded
def dashboard(
    run: Annotated[Path, typer.Argument(help="Run directory of a search, a pruning or a quantization.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "localhost",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8080,
    open: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    editable: Annotated[bool, typer.Option("--editable", help="Let the page write notes, which end with it.")] = False,
) -> None:
    """Serve optuna-dashboard on the trials of a run, whichever searcher proposed them, until Ctrl-C.

    The trials are read from the run and followed while it goes on; nothing is written into it. Pages of other sites get no
    answer. Values are the validation error and the costs that the run minimizes. Needs
    pip install 'netcarver[dashboard]'.

    \b
    Examples:
      nas dashboard runs/search-1
      nas dashboard runs/search-1 --port 9000 --open

    Exit status: 0 stopped by Ctrl-C, 2 bad input or optuna-dashboard is missing.
    """
    from nas.cli.dashboarding import Wanted, run_dashboard  # only when there is work

    run_dashboard(Wanted(run, host, port, open, editable))
