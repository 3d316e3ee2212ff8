"""How `nas watch` shows a run: a view in the terminal, one line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nas.report.contents import VAL_ACCURACY, Network
from nas.report.words import ABSENT, duration, name_of, plain, show

if TYPE_CHECKING:  # watching.py imports this file
    from nas.cli.watching import Snapshot

BAR, PLAIN_WIDTH = 40, 120
MOST_ROWS = 10
STATES = {"complete": "evaluated", "infeasible": "over the budget", "failed": "failed"}


@contextmanager
def live() -> Iterator[Callable[[Snapshot], None]]:
    """A view that is drawn anew in its place."""
    with Live(console=_console(), auto_refresh=False) as view:
        yield lambda snapshot: view.update(_view(snapshot), refresh=True)


def printed(snapshot: Snapshot) -> None:
    """Print the view once."""
    console = _console()
    with console.capture() as text:
        console.print(_view(snapshot))
    print("\n".join(row.rstrip() for row in text.get().splitlines()))


def line(snapshot: Snapshot) -> str:
    """The view in one line."""
    parts = [_stage(snapshot), _counts(snapshot)]
    if snapshot.contents:
        parts += [f"best {_best(snapshot)}", f"front of {len(snapshot.contents.front)}"]
    return f"{snapshot.path}: {'; '.join(part for part in [*parts, _state(snapshot)] if part)}"


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def _view(snapshot: Snapshot) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_row(f"nas {snapshot.command}", f"{snapshot.path}, {_state(snapshot)}")
    facts.add_row("stage", _bar(snapshot))
    if counts := _counts(snapshot):
        facts.add_row("trials", counts)
    if snapshot.contents:
        facts.add_row("best", _best(snapshot))
    parts: list[RenderableType] = [facts]
    if snapshot.contents:
        parts += [Text(), _front(snapshot.contents.front, snapshot.contents.objectives)]
    if snapshot.last:
        parts += [Text(), Text(f"last of {snapshot.log}", style="bold")]
        parts += [Text(told(record), overflow="ellipsis", no_wrap=True) for record in snapshot.last]
    return Group(*parts)


def _bar(snapshot: Snapshot) -> RenderableType:
    stage = snapshot.stage
    if stage.total is None:
        return _stage(snapshot)
    row = Table.grid(padding=(0, 2))
    row.add_row(_stage(snapshot), ProgressBar(stage.total, min(stage.done, stage.total), width=BAR))
    return row


def _stage(snapshot: Snapshot) -> str:
    stage = snapshot.stage
    if stage.total is None:
        return f"{stage.name} {stage.done}" if stage.done else stage.name
    return f"{stage.name} {stage.done}/{stage.total}"


def _state(snapshot: Snapshot) -> str:
    """Whether the run goes on, by what is known on this machine, and when it last said something."""
    since = f"last record {duration(snapshot.age)} ago"
    if snapshot.state == "ended":
        return f"ended, {since}"
    if snapshot.process is None:
        return f"interrupted: no process of this machine works in it, --resume goes on, {since}"
    return f"process {snapshot.process} works, {since}"


def _counts(snapshot: Snapshot) -> str:
    return ", ".join(f"{number} {STATES.get(state, state)}" for state, number in snapshot.counts.items())


def _best(snapshot: Snapshot) -> str:
    """Key, costs, accuracies and verdicts of the best network so far."""
    assert snapshot.contents is not None
    best, budgets = snapshot.contents.best, snapshot.contents.budgets
    names = dict.fromkeys(["macs", *(row.metric for row in budgets), VAL_ACCURACY, "test_accuracy"])
    numbers = [f"{show(n, best.metrics[n])}{_what(n)}" for n in names if n in best.metrics]
    verdicts = "".join(f", {row.text} {'kept' if row.ok else 'BROKEN'}" for row in budgets)
    return f"{best.key} {', '.join(numbers)}{verdicts}"


def _what(name: str) -> str:
    return {"macs": " (multiply-adds)", VAL_ACCURACY: " validation", "test_accuracy": " test"}.get(name, "")


def _front(front: tuple[Network, ...], objectives: tuple[str, ...]) -> Table:
    """The networks of the front by validation accuracy, the most accurate first, at most MOST_ROWS."""
    names = [*objectives, VAL_ACCURACY]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"front of {len(front)}", no_wrap=True)
    for name in names:
        table.add_column(name_of(name), justify="right")
    ordered = sorted(front, key=lambda n: -n.metrics.get(VAL_ACCURACY, 0.0))
    for network in ordered[:MOST_ROWS]:
        table.add_row(network.key, *(show(n, network.metrics.get(n)) for n in names))
    if len(front) > MOST_ROWS:
        table.add_row(f"and {len(front) - MOST_ROWS} more")
    return table


def told(record: Mapping[str, Any]) -> str:
    """A record of a log in one line."""
    if "state" in record and "cost" in record:
        return _trial(record)
    if "training" in record:
        return f"{record['training']}: step {record['step']}/{record['steps']}, loss {plain(record['loss'])}"
    return ", ".join(f"{name} {_short(value)}" for name, value in record.items() if not isinstance(value, dict | list))


def _trial(record: Mapping[str, Any]) -> str:
    cost = record["cost"].get("macs", {}).get("value")
    accuracy = record["scores"].get(VAL_ACCURACY)
    parts = [show("macs", cost), show(VAL_ACCURACY, accuracy), f"{record['seconds']:.1f} s", record["error"]]
    return f"trial {record['number']}  {record['key']}  {record['state']}  {'  '.join(p for p in parts if p and p != ABSENT)}"


def _short(value: object) -> str:
    return plain(value) if isinstance(value, float) else str(value)[:60]
