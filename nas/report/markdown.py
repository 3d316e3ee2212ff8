"""Markdown whose text from outside is neither HTML nor ends what it stands in."""

from __future__ import annotations

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
    """Text from outside, which must be neither HTML nor end a table cell."""
    return escape(line(value), quote=False).replace("|", "\\|")


def line(value: object) -> str:
    """Text without line ends."""
    return " ".join(str(value).split())


def verdict(ok: bool) -> str:
    """Of a budget."""
    return "kept" if ok else "**broken**"
