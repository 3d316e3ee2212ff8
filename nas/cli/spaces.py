"""`nas spaces`: the spaces, their size and cost range."""

from __future__ import annotations

from json import dumps
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def spaces(
    budget: opt.Budgets = None,
    shape: Annotated[str, typer.Option(help="Channels x resolution x classes of the data.")] = "3x32x10",
    json: opt.Json = False,
) -> None:
    """List the spaces with their number of networks and their cost range, sized to a budget.

    \b
    Examples:
      nas spaces
      nas spaces --budget 300MFLOPs --shape 3x224x1000
    """
    from nas.cli.listing import list_spaces, table  # counting needs torch: only when there is work

    rows = list_spaces(tuple(budget or ("20MFLOPs",)), shape)
    print(dumps({"command": "spaces", "spaces": rows}) if json else table(rows))
