"""The Pareto front: an interactive figure, the comparison of networks that the reader picks, and all of them in a table."""

from __future__ import annotations

from html import escape

from nas.report.contents import METRICS, Contents, metric_names
from nas.report.explorer import Explorer, default_axes, explore, explorer_json
from nas.report.history import MOST_SHOWN
from nas.report.parts import Section, code, folded, number, quiet, table
from nas.report.sections.top import choices
from nas.report.words import name_of

SCRIPTS = ("explorer.js",)


def front(contents: Contents) -> Section:
    """The front of one run."""
    explorer = explore(contents)
    seen = "the original among them" if contents.pruning else "as the search has seen them"
    note = f"The front: networks that no other evaluated one beats in accuracy and cost, {seen}; ★ is the best."
    if contents.timings:
        note += " Latency is measured for the networks that were timed, predicted for the others."
    if (left_out := _left_out(contents, explorer)) > 0:
        note += f" The figure shows {MOST_SHOWN} of the networks that are beaten, evenly selected, and leaves out {left_out}."
    return Section("pareto", "Pareto front", f"{interactive(explorer)}{quiet(note)}{_front_table(contents)}")


def _left_out(contents: Contents, explorer: Explorer) -> int:
    shown = {e.network.key for e in explorer.entries}
    return len({t.network.key for t in contents.trials if t.state == "complete"} - shown)


def interactive(explorer: Explorer) -> str:
    """The figure with its axes to choose, and the comparison."""
    x, y = default_axes(explorer)
    keys = "".join(f'<option value="{escape(key)}">' for key in dict.fromkeys(e.network.key for e in explorer.entries))
    label = "Networks by the two metrics that are chosen above. The same networks are in the table below, with buttons."
    return (
        f'<div class="controls">{_select("axis-x", "across", explorer, x)}{_select("axis-y", "up", explorer, y)}</div>'
        f'<div id="front" class="figure" role="img" aria-label="{label}"></div>'
        f'<script type="application/json" id="explorer-data">{explorer_json(explorer)}</script>'
        f"<h3>Compare networks</h3>"
        f'<p class="quiet no-print">Click a network in the figure, press its button in the table, or name it here.</p>'
        f'<form id="add" class="controls"><label>key of a network<input id="by-key" list="keys" autocomplete="off" size="16">'
        f'</label><datalist id="keys">{keys}</datalist><button type="submit">Compare</button></form>'
        f'<p id="said" class="quiet said" role="status"></p>'
        f'<div id="comparison" class="scroll" tabindex="0" role="region" aria-label="Comparison of networks" '
        f'style="min-height:{_height(explorer):.1f}rem"></div>'
    )


def _select(name: str, label: str, explorer: Explorer, chosen: str) -> str:
    options = "".join(
        f'<option value="{escape(m)}"{" selected" if m == chosen else ""}>{escape(name_of(m))}</option>'
        for m in explorer.metrics
    )
    return f'<label>{label}<select id="{name}">{options}</select></label>'


def _height(explorer: Explorer) -> float:
    """Room for the comparison as it is at first, in rem, so that what is below it does not jump."""
    known = {m for i in explorer.pinned for m in explorer.entries[i].network.metrics}
    return 9 + 2.2 * len(known)


def _front_table(contents: Contents) -> str:
    shown = {*METRICS, *(b.metric for b in contents.budgets)}  # all metrics are in front.csv
    names = [m for m in metric_names(contents.front) if m in shown]
    rows = [
        [code(n.key), _button(i, n.key), *(number(m, n.metrics.get(m)) for m in names), choices(n)]
        for i, n in enumerate(contents.front, 1)
    ]
    marks = ["best" if n.key == contents.best.key else "" for n in contents.front]
    headings = ["network", "compare", *(f"#{escape(name_of(m))}" for m in names), "choices"]
    content = table("Networks of the front", headings, rows, marks)
    return content if len(rows) <= 30 else folded(f"{len(rows)} networks of the front", content)


def _button(network: int, key: str) -> str:
    return (
        f'<button type="button" data-network="{network}" aria-pressed="false" aria-label="Compare network {escape(key)}">'
        "Compare</button>"
    )
