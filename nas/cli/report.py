"""`nas report`: tables, pictures and a page of a run, or one page that compares several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directory; several are compared.")],
    out: Annotated[
        Path | None, typer.Option(help="Page of a comparison.", show_default="comparison.html, in runs/ if there is one")
    ] = None,
    open: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    trust_code: opt.TrustCode = None,
    json: opt.Json = False,
) -> None:
    """Write tables, pictures and report.html of a run, or one page that compares several runs.

    Finished, running and interrupted runs alike. The page needs no network and nothing beside it.

    \b
    Examples:
      nas report runs/search-1 --open
      nas report runs/search-1 runs/search-2 runs/prune-1 --out comparison.html
    """
    from nas.cli.reporting import run_report  # matplotlib: only when there is something to draw

    run_report(runs, out, open, json)
