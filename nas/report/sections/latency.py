"""Predicted against measured latency of the networks that were timed."""

from __future__ import annotations

from html import escape

from nas.report.contents import Contents
from nas.report.figures import latency_figure
from nas.report.latency import by_attempt
from nas.report.parts import Cell, Section, code, figure, folded, number, quiet, table
from nas.report.words import latency_sentence, off, predictor_state


def latency(contents: Contents) -> Section | None:
    """None for a run that timed nothing."""
    if not contents.timings:
        return None
    several = len({t.attempt for t in contents.timings}) > 1
    rows = [
        [
            code(t.key),
            *([predictor_state(t.attempt)] if several else []),
            *(number("latency_ms", ms) for ms in (t.predicted_ms, t.measured_ms, t.spread_ms)),
            off(t.error),
            _timing(t.context),
        ]
        for t in contents.timings
    ]
    headings = ["network", *(["predictor"] if several else []), *"#predicted #measured #spread #error timing".split()]
    marks = ["best" if t.key == contents.best.key else "" for t in contents.timings]
    drawing = ""
    if by_attempt(contents.timings):
        drawing = figure("latency", "Measured against predicted latency, in ms", latency_figure(contents))
    note = quiet(
        "Each prediction was made before its network was timed. Bars and spread are the interquartile range; ★ is the best."
    )
    listed = table("Networks that were timed", headings, rows, marks)
    content = f"<p>{escape(latency_sentence(contents))}</p>{drawing}{note}{listed}"
    return Section("measured", "Predicted against measured latency", content)


def _timing(context: str) -> Cell:
    """Folded to the last that it says, which are the doubts where there are some."""
    last = context.rpartition("; ")[2].partition(", ")[0]
    return folded(escape(last), escape(context)) if context else ""
