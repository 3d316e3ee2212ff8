"""The report as one HTML file that needs nothing else, no network either. All text from outside is escaped."""

from __future__ import annotations

from html import escape

from nas.report.contents import Contents
from nas.report.parts import document
from nas.report.sections import classes, common, effort, front, history, latency, made, network, origin, top
from nas.report.words import answer


def report_html(contents: Contents) -> str:
    """The whole page, from the answer to how it was found; a section that a run has nothing for is left out."""
    sections = (
        top.budgets,
        effort.plain,
        origin.original,
        top.best,
        classes.classes,
        network.architecture,
        origin.passes,
        origin.quantization,
        origin.kept,
        front.front,
        network.costs,
        latency.latency,
        history.search,
        common.common,
        history.training,
        effort.effort,
        top.checks,
        made.made,
    )
    title = escape(f"{contents.name}: {answer(contents)}")
    return document(title, top.header(contents), [section(contents) for section in sections], front.SCRIPTS)
