"""Several runs on one page: their results and settings side by side, their fronts over one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from nas.report.contents import METRICS, Contents, metric_names
from nas.report.explorer import explore_all
from nas.report.parts import NOTHING, Cell, Section, code, command, document, number, quiet, table, verdict
from nas.report.sections import front
from nas.report.words import answer, duration, name_of

Facts = dict[str, Callable[[Contents], Cell]]


def comparison_html(runs: Sequence[Contents]) -> str:
    """The whole page. Runs on different data may be compared, which is then said."""
    title = f"{len(runs)} runs compared"
    notes = "".join(f'<p class="notice">{escape(note)}</p>' for note in notices(runs))
    answers = "".join(f"<li>{code(c.name)}: {escape(answer(c))}</li>" for c in runs)
    header = f"<header><h1>{title}</h1>{notes}<ul>{answers}</ul></header>"
    sections = (_results(runs), _fronts(runs), _settings(runs), _made(runs))
    return document(title, header, sections, front.SCRIPTS)


def notices(runs: Sequence[Contents]) -> list[str]:
    """What makes numbers of these runs hard to compare."""
    notes = []
    if len({_data(c) for c in runs}) > 1:
        named = "; ".join(f"{c.name}: {c.config.get('data', {}).get('name') or 'none'}, {_data(c) or 'unknown'}" for c in runs)
        notes.append(f"These runs are on different data, so their accuracies are not of the same task ({named}).")
    targets = {c.target for c in runs if "latency_ms" in c.best.metrics}
    if len(targets) > 1:
        notes.append(f"Latencies are of different targets: {'; '.join(sorted(t or 'unknown' for t in targets))}.")
    if unfinished := [c.name for c in runs if not c.finished]:
        notes.append(f"Not ended, so shown with the best network so far, which is not verified: {', '.join(unfinished)}.")
    return notes


def settings_that_differ(runs: Sequence[Contents]) -> dict[str, list[Any]]:
    """Each setting that is not the same in all runs, and its value in each, None where a run does not have it."""
    options: list[dict[str, Any]] = [dict(c.config.get("options", {})) for c in runs]
    names = dict.fromkeys(name for found in options for name in found)
    values = {name: [found.get(name) for found in options] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


def _data(contents: Contents) -> object:
    return contents.config.get("data", {}).get("fingerprint")


def _results(runs: Sequence[Contents]) -> Section:
    """One row a metric or fact, one column a run."""
    names = [m for m in metric_names([c.best for c in runs]) if m in {*METRICS, *(b.metric for c in runs for b in c.budgets)}]
    rows = [[name, *(of(c) for c in runs)] for name, of in FACTS.items()]
    rows += [[escape(name_of(m)), *(number(m, c.best.metrics.get(m)) for c in runs)] for m in names]
    headings = ["best network", *(f"#{code(c.name)}" for c in runs)]
    return Section("results", "Results", table("Results of the runs", headings, rows))


def _fronts(runs: Sequence[Contents]) -> Section:
    note = quiet("Lines join networks of the front of one run; ★ is the best of each.")
    return Section("pareto", "Pareto fronts", front.interactive(explore_all(runs)) + note)


def _settings(runs: Sequence[Contents]) -> Section:
    rows = [[code(name), *(_setting(value) for value in values)] for name, values in settings_that_differ(runs).items()]
    if not rows:
        return Section("settings", "Settings that differ", "<p>None.</p>")
    return Section("settings", "Settings that differ", table("Settings", ["setting", *(code(c.name) for c in runs)], rows))


def _setting(value: Any) -> Cell:  # noqa: ANN401
    if value is None or value == []:
        return NOTHING
    return escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _made(runs: Sequence[Contents]) -> Section:
    parts = [
        f"<h3>{code(c.name)}</h3>{command(str(c.config['argv']), f'that made {c.name}')}" for c in runs if "argv" in c.config
    ]
    return Section("made", "How they were made", "".join(parts))


def _budgets(contents: Contents) -> Cell:
    return "<br>".join(f"{escape(b.text)} {verdict(b.ok)}" for b in contents.budgets) or NOTHING


def _fact(*path: str) -> Callable[[Contents], Cell]:
    """A value of config.json."""

    def read(contents: Contents) -> Cell:
        value: Any = contents.config
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return NOTHING if value is None else escape(str(value))

    return read


FACTS: Facts = {
    "network": lambda c: code(c.best.key),
    "command": _fact("command"),
    "data": _fact("data", "name"),
    "space": _fact("space", "name"),
    "seed": _fact("seed"),
    "device": _fact("device", "name"),
    "budgets": _budgets,
    "trials": lambda c: str(len(c.trials)),
    "networks of the front": lambda c: str(len(c.front)),
    "duration": lambda c: duration(c.summary["seconds"]) if "seconds" in c.summary else NOTHING,
}
