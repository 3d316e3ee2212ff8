"""The command `nas`."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Annotated

import typer

from nas.cli import (
    baseline,
    compress,
    cost,
    dashboard,
    diff,
    export,
    extract,
    profile,
    prune,
    quantize,
    report,
    search,
    spaces,
    train,
    verify,
    watch,
)
from nas.cli.memory import keep_freed_memory
from nas.cli.progress import LogLines

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    search.search,
    baseline.baseline,
    prune.prune,
    quantize.quantize,
    compress.compress,
    train.train,
    profile.profile,
    cost.cost,
    export.export,
    report.report,
    watch.watch,
    dashboard.dashboard,
    verify.verify,
    extract.extract,
    diff.diff,
    spaces.spaces,
):
    app.command()(command)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(f"netcarver {version('netcarver')}")
        raise typer.Exit


@app.callback()
def common(
    _: Annotated[bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)] = False,
) -> None:
    """Find small, fast networks for real hardware: one budget in, one verified network out."""


def main() -> None:
    """Run the command line."""
    keep_freed_memory()
    logging.getLogger("nas").setLevel(logging.INFO)
    logging.getLogger("nas").addHandler(LogLines())
    app()
