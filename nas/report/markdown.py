"""Markdown whose text from outside is neither HTML nor ends what it stands in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, content: str) -> str:
    """Content under a heading; nothing where there is none."""
    return f"## {title}\n\n{content}" if content else ""


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; nothing without rows."""
    lines = [f"| {' | '.join(text(cell) for cell in row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *lines]) if lines else ""


def text(value: object) -> str:
    """Text from outside, which must be no HTML, link, image or code, nor end a table cell."""
    shown = escape(line(value), quote=False)
    for mark in "\\`[]|":
        shown = shown.replace(mark, f"\\{mark}")
    # addresses become links by themselves
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", shown.replace("://", "&#58;//"))


def code(value: object) -> str:
    """Text from outside within a line, as it is typed."""
    shown, fence = line(value), _fence(value, 1)
    return f"{fence} {shown} {fence}" if "`" in shown else f"`{shown}`"


def block(value: object) -> str:
    """A line from outside as a block of code, which it cannot end."""
    fence = _fence(value, 3)
    return f"{fence}\n{line(value)}\n{fence}"


def _fence(value: object, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", str(value))), default=0)
    return "`" * max(least, longest + 1)


def line(value: object) -> str:
    """Text without line ends."""
    return " ".join(str(value).split())


def verdict(ok: bool) -> str:
    """Of a budget."""
    return "kept" if ok else "**broken**"
