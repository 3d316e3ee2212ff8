"""What happened while the run went on: the search over time, and the trainings."""

from __future__ import annotations

from html import escape

from nas.report.contents import Contents
from nas.report.figures import progress_figure, training_figure, volume_figure
from nas.report.history import MOST_SHOWN, read_history
from nas.report.latency import agreement
from nas.report.parts import NOTHING, Section, facts, figure, quiet, table
from nas.report.words import show


def search(contents: Contents) -> Section | None:
    """How fast the search got where it came, and how well it ranked."""
    if not contents.trials or contents.pruning is not None:
        return None
    counts = {s: sum(t.state == s for t in contents.trials) for s in ("complete", "infeasible", "failed")}
    text = (
        f"{len(contents.trials)} trials: {counts['complete']} evaluated, {counts['infeasible']} over the budget, "
        f"{counts['failed']} failed."
    )
    content = quiet(text) + (_figures(contents) if contents.evaluated else "") + _ranking(contents)
    return Section("search", "Search over time", content)


def training(contents: Contents) -> Section | None:
    """The loss of each training."""
    if not contents.curves:
        return None
    rows = [
        [escape(c.name), str(c.epochs), show("val_loss", c.losses[0]), show("val_loss", c.losses[-1]), f"{c.parts[-1]:.0%}"]
        for c in contents.curves
    ]
    drawing = figure("training", "Loss of each training against the part of it that is done", training_figure(contents.curves),
                     "figure low")  # fmt: skip
    note = quiet("The loss of single steps, on augmented training images; of a supernet, that of the largest network.")
    return Section("training", "Training", drawing + note + table(
        "Trainings", ["training", "#epochs", "#first loss", "#last loss", "#done"], rows))  # fmt: skip


def _figures(contents: Contents) -> str:
    history = read_history(contents)
    few = f", {MOST_SHOWN} of them shown" if len(contents.evaluated) > len(history.shown) else ""
    label = f"Validation accuracy of the evaluated networks by trial{few}, and the best within the budget so far"
    parts = [figure("progress", label, progress_figure(history), "figure low")]
    if history.volume or history.feasible:
        label = "Hypervolume of the front and share of trials within the budget, by trial"
        parts.append(figure("volume", label, volume_figure(history), "figure low"))
    if history.volume:
        parts.append(
            quiet(
                "Hypervolume: the share that the front dominates of the box from the best value of each objective to its "
                "budget, or to the worst value that was seen."
            )
        )
    return "".join(parts)


def _ranking(contents: Contents) -> str:
    """How well what guided the search ranks networks, said also where that was not measured."""
    latency = agreement(contents.timings)
    known = latency.kendall is not None
    values = {
        "ranking by predicted latency": f"Kendall tau {latency.kendall:.2f} over {latency.networks} networks"
        if known
        else NOTHING,
        "ranking by shared weights": _shared(contents),
    }
    return f"<h3>Ranking quality</h3>{facts(values)}"


def _shared(contents: Contents) -> str:
    found = contents.summary.get("ranking")
    if isinstance(found, dict) and "kendall" in found:
        return escape(f"Kendall tau {found['kendall']:.2f} over {found.get('networks', '?')} networks")
    return f"{NOTHING} no other network of this run was trained on its own"
