"""The command `nas`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from io import TextIOWrapper
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
from nas.cli.panels import SETTINGS, Command
from nas.cli.progress import LogLines

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)
# each with its summary in one line of `nas --help`
COMMANDS: Mapping[Callable[..., None], str] = {
    search.search: "Find the best network that meets a budget.",
    baseline.baseline: "Train the best plain network of a budget.",
    prune.prune: "Cut a network that you have to a budget.",
    quantize.quantize: "Quantize a network and measure whether it got faster.",
    compress.compress: "Chain passes: prune, fine-tune, quantize, export.",
    train.train: "Train a supernet, to be searched as often as you like.",
    profile.profile: "Measure a latency table of this machine.",
    cost.cost: "Count what networks cost, layer by layer.",
    export.export: "Export a network for a runtime, and compare the file.",
    report.report: "Write the report of a run, or of several.",
    watch.watch: "Show a run while it goes on.",
    dashboard.dashboard: "Show the trials of a run in optuna-dashboard.",
    verify.verify: "Check again what a run delivered.",
    extract.extract: "Export any network of a run, checked like the best one.",
    diff.diff: "Show what changed from one run to another.",
    spaces.spaces: "List the search spaces, their sizes and costs.",
}
for command, summary in COMMANDS.items():
    app.command(cls=Command, short_help=summary, context_settings=SETTINGS)(command)


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what a terminal cannot show, or no text has, is written as an escape
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    logging.getLogger("nas").setLevel(logging.INFO)
    logging.getLogger("nas").addHandler(LogLines())
    app()
