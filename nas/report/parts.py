"""The parts that every page is made of: sections, tables, figures, verdicts. All text that they are given is escaped HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from nas.report.words import ABSENT, show

# the browser itself then refuses whatever is not in the file
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
Cell = str  # escaped HTML
# the whole of plotly.js is four times as long, and a browser takes a second more to read it
PLOTLY = "plotly-basic.min.js"
STYLES = {"#": ' class="number"', "~": ' class="long"'}
NOTHING: Cell = f'<span role="img" aria-label="not known">{ABSENT}</span>'


@dataclass(frozen=True)
class Section:
    """A part of a page under its own heading; `name` is its place in the address."""

    name: str
    title: str
    content: str


def document(title: str, header: str, sections: Iterable[Section | None], scripts: Sequence[str] = ()) -> str:
    """Put a page together: what stands first, a list of its sections, the sections, plotly.js and the scripts."""
    there = [s for s in sections if s is not None and s.content]
    links = "".join(f'<li><a href="#{s.name}">{s.title}</a></li>' for s in there)
    body = "\n".join(
        f'<section aria-labelledby="{s.name}"><h2 id="{s.name}">{s.title}</h2>{s.content}</section>' for s in there
    )
    code = "\n".join(f"<script>{text}</script>" for text in map(asset, (PLOTLY, "figures.js", "copy.js", *scripts)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{asset("style.css")}</style></head>\n<body>\n'
        f'{header}\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{body}\n</main>\n'
        f"<noscript><p class=notice>The figures and the comparison need JavaScript; the tables do not.</p></noscript>\n"
        f"{code}\n</body></html>\n"
    )


def asset(name: str) -> str:
    """A style sheet or a script of nas/report/assets."""
    return (files("nas.report") / "assets" / name).read_text(encoding="utf-8")


def figure(name: str, label: str, content: str, style: str = "figure") -> str:
    """Room of a fixed height, so that nothing jumps, and the figure that is drawn there; `label` is read aloud."""
    data = f'<script type="application/json" data-figure="figure-{name}">{content}</script>'
    return f'<div id="figure-{name}" class="{style}" role="img" aria-label="{escape(label)}"></div>{data}'


def table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[Cell]], marks: Sequence[str] = ()) -> str:
    """A table of escaped cells, whose first column names the rows.

    A heading that begins with # is of a column of numbers, one that begins with ~ of longer texts.
    """
    styles = [STYLES.get(h[0], "") for h in headings]
    columns = zip(headings, styles, strict=True)
    head = "".join(f'<th scope="col"{style}>{h.lstrip("#~")}</th>' for h, style in columns)
    lines = []
    for row, mark in zip(rows, marks or [""] * len(rows), strict=True):
        first = f'<th scope="row"{styles[0]}>{row[0]}</th>'
        rest = "".join(f"<td{style}>{_cell(value)}</td>" for value, style in zip(row[1:], styles[1:], strict=True))
        lines.append(f'<tr class="{mark}">{first}{rest}</tr>' if mark else f"<tr>{first}{rest}</tr>")
    head, body = f"<thead><tr>{head}</tr></thead>", f"<tbody>{''.join(lines)}</tbody>"
    # without a label of its own a region that scrolls could not be reached by keyboard
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f'<caption class="hidden">{caption}</caption>{head}{body}</table></div>'
    )


def facts(values: Mapping[str, Cell]) -> str:
    """A list of names and escaped values; those that are empty are left out."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{value}</dd>' for name, value in values.items() if value)}</dl>"


def folded(summary: str, content: str) -> str:
    """What is shown on demand."""
    return f"<details><summary>{summary}</summary>{content}</details>"


def number(metric: str, value: float | None) -> Cell:
    """A metric with its unit, or a dash that is read as not known."""
    return escape(show(metric, value)) if value is not None else NOTHING


def verdict(ok: bool, words: tuple[str, str] = ("kept", "broken")) -> Cell:
    """A word and a sign, so that no colour is needed to read it."""
    return f'<span class="good">✓ {words[0]}</span>' if ok else f'<span class="bad">✗ {words[1]}</span>'


def command(text: str, label: str) -> Cell:
    """A command line with a button that copies it; `label` says what it does."""
    line = escape(text)
    button = f'<button type="button" data-copy="{line}" aria-label="Copy the command {escape(label)}">Copy</button>'
    return f'<div class="command"><code>{line}</code>{button}</div>'


def share_bar(share: float | None) -> Cell:
    """A share of 1 as a bar and a number."""
    if share is None:
        return NOTHING
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.0f}%"></i></span>{share:.0%}'


def code(text: object) -> Cell:
    """A name as it is typed."""
    return f"<code>{escape(str(text))}</code>"


def quiet(text: str) -> str:
    """A remark."""
    return f"<p class=quiet>{text}</p>"


def _cell(value: Cell) -> Cell:
    return NOTHING if value == ABSENT else value
