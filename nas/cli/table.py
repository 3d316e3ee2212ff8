"""Tables in the terminal, and plain ones elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def print_table(columns: Iterable[tuple[str, str]], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns (heading, side), folded only where a terminal is too narrow for them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, (name, side) in enumerate(columns):
        table.add_column(name, justify="right" if side == "right" else "left", no_wrap=i > 1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 1000
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    with console.capture() as printed:
        console.print(table)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()))
