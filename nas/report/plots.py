"""Pictures of the front and of timed networks. The only file that imports matplotlib; it makes no global figure."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nas.report.contents import VAL_ACCURACY, Contents, Network
from nas.report.latency import by_attempt, coordinates, extent
from nas.report.words import Axis, axis_of, predictor_state, show, span

PANEL_INCHES, DPI = (7.2, 4.8), 150
# the palette of Okabe and Ito (2008), which all kinds of colour vision tell apart
TRIALS, FRONT, BEST, BUDGET = "#808080", "#0072b2", "#d55e00", "#4d4d4d"
# times the largest latency: a budget above it would leave no room for the networks
FAR = 3
# dots that an SVG draws one by one
MOST_VECTORS = 1000
ATTEMPTS = (("#0072b2", "o"), ("#e69f00", "s"), ("#009e73", "D"), ("#cc79a7", "^"))


def front_pictures(contents: Contents) -> dict[str, bytes]:
    """Draw accuracy against each objective, one panel an objective; as PNG and as SVG, by these names."""
    panels = len(contents.objectives)
    figure = Figure(figsize=(PANEL_INCHES[0] * panels, PANEL_INCHES[1]), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(1, panels, sharey=True, squeeze=False)[0], contents.objectives, strict=True):
        _draw(axes, contents, metric)
    figure.axes[0].set_ylabel("validation accuracy (%)")
    return {"png": _png(figure), "svg": _svg(figure)}


def latency_png(contents: Contents) -> bytes:
    """Draw measured against predicted latency of the timed networks that have a prediction."""
    groups = by_attempt(contents.timings)
    shown = extent(contents.timings)
    limits = [b for b in contents.budgets if b.metric == "latency_ms" and b.limit <= FAR * max(shown)]
    ends = span(shown + [b.limit for b in limits])
    figure = Figure(figsize=(PANEL_INCHES[1] + 0.4, PANEL_INCHES[1] + 0.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(ends, ends, c=BUDGET, ls=":", lw=1.4, label="measured as predicted")
    for attempt, group in groups.items():
        colour, marker = ATTEMPTS[attempt % len(ATTEMPTS)]
        name = predictor_state(attempt) if len(groups) > 1 else "timed networks"
        axes.errorbar(
            *coordinates(group),
            fmt=marker, c=colour, ms=5, mec="white", mew=0.6, elinewidth=1.0, capsize=2, label=f"{name} ({len(group)})",
        )  # fmt: skip
    for budget in limits:
        axes.axhline(budget.limit, c=BUDGET, ls=(0, (5, 3)), lw=1.2)
        axes.annotate(
            f"budget {budget.text}", (0.0, budget.limit), xycoords=("axes fraction", "data"),
            xytext=(4, -4), textcoords="offset points", va="top", color=BUDGET, fontsize=9,
        )  # fmt: skip
    axes.set(xlim=ends, ylim=ends, xlabel="predicted latency (ms)", ylabel="measured latency (ms)", aspect="equal")
    _finish(axes, 2)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # without the salt names of its parts would be random
    with rc_context({"svg.hashsalt": "netcarver"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _draw(axes: Axes, contents: Contents, metric: str) -> None:
    tried = [t.network for t in contents.evaluated]
    limits = [b for b in contents.budgets if b.metric == metric]
    x = axis_of(metric, [*tried, *contents.front, contents.best], [b.limit for b in limits])
    y = axis_of(VAL_ACCURACY, [])
    _dots(axes, (x, y), tried)
    # steps, because nothing is known between two networks; with more objectives the front is a surface and has no line
    line = "-" if len(contents.objectives) == 1 else ""
    axes.plot(
        x.of(contents.front),
        y.of(contents.front),
        marker="o",
        ls=line,
        drawstyle="steps-post",
        c=FRONT,
        ms=5,
        lw=1.6,
        label=f"front ({len(contents.front)})",
    )
    for budget in limits:
        _budget_line(axes, x.factor * budget.limit, f"budget {budget.text}")
    _star(axes, (x, y), contents.best, "best" if contents.finished else "best so far")
    axes.set_xlabel(x.label)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.margins(x=0.07, y=0.08)
    _finish(axes, 3)


def _finish(axes: Axes, columns: int) -> None:
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, frameon=False, fontsize=9, columnspacing=1.4)


def _dots(axes: Axes, scales: tuple[Axis, Axis], networks: Sequence[Network]) -> None:
    if networks:
        x, y = (scale.of(networks) for scale in scales)
        many = len(networks) > MOST_VECTORS
        axes.scatter(x, y, s=16, c=TRIALS, alpha=0.5, lw=0, rasterized=many, label=f"evaluated networks ({len(networks)})")


def _budget_line(axes: Axes, limit: float, label: str) -> None:
    axes.axvline(limit, c=BUDGET, ls=(0, (5, 3)), lw=1.2)
    axes.annotate(
        label, (limit, 1.0), xycoords=("data", "axes fraction"), xytext=(-5, -4), textcoords="offset points",
        rotation=90, ha="right", va="top", color=BUDGET, fontsize=9,
    )  # fmt: skip


def _star(axes: Axes, scales: tuple[Axis, Axis], best: Network, label: str) -> None:
    x, y = (scale.of([best])[0] for scale in scales)
    values = [show(scale.metric, best.metrics[scale.metric]) for scale in scales if scale.metric in best.metrics]
    text = f"{label}: {', '.join(values)}"
    axes.plot([x], [y], "*", c=BEST, ms=15, mec="white", mew=0.8, ls="", label=text, zorder=5)
