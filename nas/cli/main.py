"""The command `nas`."""

from __future__ import annotations

import logging

import typer

from nas.cli import report, search, spaces, train
from nas.cli.progress import LogLines

app = typer.Typer(
    name="nas",
    help="Find small, fast networks for real hardware: one budget in, one verified network out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (search.search, train.train, report.report, spaces.spaces):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    logging.getLogger("nas").setLevel(logging.INFO)
    logging.getLogger("nas").addHandler(LogLines())
    app()
