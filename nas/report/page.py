"""The report as one HTML file that needs nothing else, no network either. All text from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from nas.report.contents import METRICS, Contents, Network, metric_names
from nas.report.figures import front_figure, kept_figure, latency_figure, library, progress_figure
from nas.report.latency import by_attempt
from nas.report.pruning import stages_of
from nas.report.template import SCRIPT, STYLE
from nas.report.words import answer, change, duration, latency_sentence, name_of, off, plain, predictor_state, provenance, show

# the browser itself then refuses whatever is not in the file
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
Cell = str  # escaped HTML


def report_html(contents: Contents) -> str:
    """The whole page: answer, budgets, best network, front, search over time, how it was made."""
    title = escape(answer(contents))
    body = [
        f"<header><p class=quiet>{escape(contents.name)}</p><h1>{title}</h1></header>",
        _notices(contents),
        _budgets(contents),
        _original(contents),
        _best(contents),
        _kept(contents),
        _front(contents),
        _latency(contents),
        _progress(contents),
        _checks(contents.verify),
        _made(contents),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(contents.name)}: {title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(part for part in body if part)
        + f"\n<script>{library()}</script>\n<script>{SCRIPT}</script>\n</body></html>\n"
    )


# -- sections


def _notices(contents: Contents) -> str:
    notes = []
    if not contents.finished:
        notes.append("This run has not ended: the best network so far is shown, and nothing of it is verified yet.")
    failed = [str(check["name"]) for check in contents.verify.get("checks", ()) if not check["ok"]]
    if failed:
        notes.append(f"Verification failed: {'; '.join(failed)}.")
    if contents.foreign_table:
        notes.append(
            f"The search was guided by the latency table of another target (--accept-foreign-table): {contents.foreign_table}."
        )
    return "".join(f'<p class="notice">{escape(note)}</p>' for note in notes)


def _budgets(contents: Contents) -> str:
    rows = [
        [escape(b.text), escape(name_of(b.metric)), show(b.metric, b.limit), show(b.metric, b.value), _verdict(b.ok)]
        for b in contents.budgets
    ]
    return _section("Budget", _table(["budget", "limits", "#limit", "#value", "verdict"], rows)) if rows else ""


def _best(contents: Contents) -> str:
    rows = [
        [escape(name_of(m)), show(m, contents.best.metrics[m]), escape(provenance(m, contents.taken.get(m)))]
        for m in metric_names([contents.best])
    ]
    title = "Best network" if contents.finished else "Best network so far"
    choices = f"<div><code>{escape(contents.best.key)}</code></div>{_choices(contents.best)}"
    return _section(title, choices + _table(["metric", "#value", "how it was taken"], rows))


def _original(contents: Contents) -> str:
    """The original and the pruned network side by side, and the accuracy after each stage."""
    pruning = contents.pruning
    if pruning is None:
        return ""
    best = contents.best.metrics
    names = [n for n in metric_names([contents.best]) if n in pruning.metrics and n in METRICS]
    rows = [
        [escape(name_of(n)), show(n, pruning.metrics[n]), show(n, best[n]), change(n, pruning.metrics[n], best[n])]
        for n in names
    ]
    table = _table(["metric", "#original", "#pruned", "#change"], rows)
    known = [s for s in stages_of(pruning, contents.best.key) if s.val_accuracy is not None]
    stages = _table(["stage", "#validation accuracy"], [[escape(s.name), show("val_accuracy", s.val_accuracy)] for s in known])
    return _section(f"Original: {escape(pruning.name)}", table + (stages if len(known) > 1 else ""))


def _kept(contents: Contents) -> str:
    pruning = contents.pruning
    if pruning is None or not pruning.kept:
        return ""
    removed = f"<p>Blocks removed: {escape(', '.join(pruning.removed))}.</p>" if pruning.removed else ""
    note = (
        "Channels that each group of layers kept, in order of execution; a group is named after the first layer that writes it."
    )
    figure = _figure("kept", kept_figure(pruning), "figure low")
    rows = [[f"<code>{escape(k.group)}</code>", str(k.kept), str(k.width), f"{k.share:.0%}"] for k in pruning.kept]
    table = _table(["group", "#kept", "#of", "#share"], rows)
    more = f"<details><summary>{len(rows)} groups</summary>{table}</details>"
    return _section("Channels that were kept", f"{removed}{figure}<p class=quiet>{note}</p>{more}")


def _front(contents: Contents) -> str:
    figures = "".join(_figure(f"front-{i}", front_figure(contents, m)) for i, m in enumerate(contents.objectives))
    shown = {*METRICS, *(b.metric for b in contents.budgets)}  # all metrics are in front.csv
    names = [m for m in metric_names(contents.front) if m in shown]
    rows = [
        [f"<code>{escape(n.key)}</code>", *(escape(show(m, n.metrics.get(m))) for m in names), _choices(n)]
        for n in contents.front
    ]
    marks = ["best" if n.key == contents.best.key else "" for n in contents.front]
    headings = ["network", *(f"#{escape(name_of(m))}" for m in names), "choices"]
    seen = "the original among them" if contents.pruning else "as the search has seen them"
    note = f"Networks that no other evaluated one beats in accuracy and cost, {seen}; ★ is the best."
    if contents.timings:
        note += " Latency is measured for the networks that were timed, predicted for the others."
    return _section("Pareto front", f"{figures}<p class=quiet>{note}</p>{_table(headings, rows, marks)}")


def _latency(contents: Contents) -> str:
    if not contents.timings:
        return ""
    several = len({t.attempt for t in contents.timings}) > 1
    rows = [
        [
            f"<code>{escape(t.key)}</code>",
            *([predictor_state(t.attempt)] if several else []),
            *(show("latency_ms", ms) for ms in (t.predicted_ms, t.measured_ms, t.spread_ms)),
            off(t.error),
            _timing(t.context),
        ]
        for t in contents.timings
    ]
    headings = ["network", *(["predictor"] if several else []), *"#predicted #measured #spread #error timing".split()]
    marks = ["best" if t.key == contents.best.key else "" for t in contents.timings]
    figure = _figure("latency", latency_figure(contents)) if by_attempt(contents.timings) else ""
    note = "Each prediction was made before its network was timed. Bars and spread are the interquartile range; ★ is the best."
    content = f"<p>{escape(latency_sentence(contents))}</p>{figure}<p class=quiet>{note}</p>{_table(headings, rows, marks)}"
    return _section("Predicted against measured latency", content)


def _progress(contents: Contents) -> str:
    if not contents.trials or contents.pruning is not None:
        return ""
    counts = {s: sum(t.state == s for t in contents.trials) for s in ("complete", "infeasible", "failed")}
    text = (
        f"{len(contents.trials)} trials: {counts['complete']} evaluated, {counts['infeasible']} over the budget, "
        f"{counts['failed']} failed."
    )
    figure = _figure("progress", progress_figure(contents), "figure low") if contents.evaluated else ""
    return _section("Search over time", f"<p class=quiet>{text}</p>{figure}")


def _checks(verify: Mapping[str, Any]) -> str:
    rows = [
        [
            escape(str(c["name"])),
            plain(c["value"]),
            plain(c["expected"]),
            _verdict(c["ok"], ("passed", "failed")),
            escape(str(c["detail"])),
        ]
        for c in verify.get("checks", ())
    ]
    if not rows:
        return ""
    return _section("Verification of the files", _table(["check", "#value", "#expected", "verdict", "detail"], rows))


def _made(contents: Contents) -> str:
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in _facts(contents))
    options = "".join(
        f"<dt>{escape(str(name))}</dt><dd><code>{escape(str(value))}</code></dd>"
        for name, value in contents.config.get("options", {}).items()
    )
    more = f"<details><summary>all options</summary><dl>{options}</dl></details>" if options else ""
    return _section("How it was made", f"<dl>{facts}</dl>{more}")


def _facts(contents: Contents) -> Iterable[tuple[str, Cell]]:
    """Name and escaped value of what is known of the making; unknown facts are left out."""
    config = contents.config
    data, space, device = config.get("data", {}), config.get("space", {}), config.get("device", {})
    known = {
        "command": f"<code>{escape(str(config['argv']))}</code>" if "argv" in config else "",
        "seed": escape(str(config.get("seed", ""))),
        "data": escape(_sentence(data.get("name"), _sizes(data), _images(data))),
        "data fingerprint": f"<code>{escape(str(data['fingerprint']))}</code>" if "fingerprint" in data else "",
        "classes": escape(", ".join(map(str, data.get("class_names") or ()))),
        "space": escape(_sentence(space.get("name"), f"version {space['version']}" if "version" in space else "")),
        "device": escape(_sentence(device.get("name"), device.get("type"))),
        "time": duration(contents.summary["seconds"]) if "seconds" in contents.summary else "",
        "versions": escape(", ".join(f"{name} {number}" for name, number in config.get("versions", {}).items())),
    }
    return [(name, value) for name, value in known.items() if value]


# -- parts


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _figure(name: str, figure: str, style: str = "figure") -> str:
    return f'<div id="{name}" class="{style}"></div><script type="application/json" data-figure="{name}">{figure}</script>'


def _table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], marks: Sequence[str] = ()) -> str:
    """A table of escaped cells; a heading that begins with # is of a column of numbers."""
    styles = [' class="number"' if h.startswith("#") else "" for h in headings]
    head = "".join(f"<th{style}>{h.removeprefix('#')}</th>" for h, style in zip(headings, styles, strict=True))
    lines = []
    for row, mark in zip(rows, marks or [""] * len(rows), strict=True):
        cells = "".join(f"<td{style}>{cell}</td>" for cell, style in zip(row, styles, strict=True))
        lines.append(f'<tr class="{mark}">{cells}</tr>' if mark else f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _verdict(ok: bool, words: tuple[str, str] = ("kept", "broken")) -> Cell:
    return f'<span class="good">✓ {words[0]}</span>' if ok else f'<span class="bad">✗ {words[1]}</span>'


def _choices(network: Network) -> Cell:
    listed = ", ".join(f"{name}={value}" for name, value in network.choices.items())
    return f"<details><summary>{len(network.choices)} choices</summary><code>{escape(listed)}</code></details>"


def _timing(context: str) -> Cell:
    """Folded to the last that it says, which are the doubts where there are some."""
    last = context.rpartition("; ")[2].partition(", ")[0]
    return f"<details><summary>{escape(last)}</summary>{escape(context)}</details>" if context else ""


def _sizes(data: Mapping[str, Any]) -> str:
    counts = [f"{data[split]} {name}" for split, name in (("train", "training"), ("val", "validation")) if split in data]
    return f"{' and '.join(counts)} images" if counts else ""


def _images(data: Mapping[str, Any]) -> str:
    if not {"channels", "resolution"} <= set(data):
        return ""
    return f"{data['channels']} x {data['resolution']} x {data['resolution']}"


def _sentence(*parts: object) -> str:
    return ", ".join(str(p) for p in parts if p)
