"""What a search is worth and what it took: the plain network beside it, how its space was chosen, where the time went."""

from __future__ import annotations

from html import escape

from nas.report.contents import Contents, network
from nas.report.parts import Section, code, folded, number, quiet, share_bar, table
from nas.report.words import duration, name_of

COMPARED = ("val_accuracy", "test_accuracy", "macs", "params", "latency_ms")


def plain(contents: Contents) -> Section | None:
    """The searched network beside the plain one of the same budget."""
    summary = contents.summary
    if "baseline" not in summary:
        return None
    searched = network(summary.get("searched", summary)["best"])
    other = network(summary["baseline"]["best"])
    names = [n for n in COMPARED if n in searched.metrics and n in other.metrics]
    rows = [
        [label, code(net.key), *(number(n, net.metrics[n]) for n in names)]
        for label, net in (("searched", searched), ("plain", other))
    ]
    headings = ["network", "key", *(f"#{escape(name_of(n))}" for n in names)]
    marks = ["best" if net.key == contents.best.key else "" for net in (searched, other)]
    note = (
        "The plain network is the best of a dense CNN, a ResNet and a MobileNetV2, each scaled to the budget, trained with the "
        "same recipe and for as long. The one with the higher validation accuracy is delivered."
    )
    return Section(
        "plain", "Beside the plain network", table("The searched and the plain network", headings, rows, marks) + quiet(note)
    )


def effort(contents: Contents) -> Section | None:
    """Where the processor time went, and by what evidence the space was chosen."""
    spent, evidence = contents.summary.get("time", {}), contents.config.get("choice", [])
    if not spent and not evidence:
        return None
    total = sum(spent.values()) or 1.0
    stages = [[escape(stage), duration(seconds), share_bar(seconds / total)] for stage, seconds in spent.items()]
    content = table("Processor time by stage", ["stage", "#time", "share"], stages) if stages else ""
    rows = [
        [escape(str(row["family"])), escape(str(row["form"] or "–")), str(row.get("resolution", "–")),
         number("macs", row["macs"]), str(row["round"] + 1), str(row["steps"]), number("val_accuracy", row["val_accuracy"])]
        for row in evidence
    ]  # fmt: skip
    if rows:
        headings = ["family", "form", "#resolution", "#multiply-adds", "#round", "#steps", "#validation accuracy"]
        listed = table("Short trainings that the space was chosen by", headings, rows)
        content += folded(f"{len(rows)} short trainings that the space was chosen by", listed)
    return Section("effort", "Where the time went", content)
