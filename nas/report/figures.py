"""The interactive figures of the page, as JSON for plotly.js. The only file that imports plotly.

A trace's `meta` is the name of its colour; nas/report/template.py paints it for a light or a dark page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from nas.report.contents import VAL_ACCURACY, Contents, Network, metric_names
from nas.report.latency import Timed, by_attempt, coordinates, extent
from nas.report.pruning import Pruning
from nas.report.words import Axis, axis_of, name_of, off, predictor_state, show, span

# of the predictors, one after the other; colours attempt0 to attempt3 in nas/report/template.py go with them
SYMBOLS = ("circle", "square", "diamond", "triangle-up")


def library() -> str:
    """The source text of plotly.js."""
    return get_plotlyjs()


def front_figure(contents: Contents, metric: str) -> str:
    """Validation accuracy against one objective: all evaluated networks, the front, the best, the budget."""
    tried = [t.network for t in contents.evaluated]
    limits = [b for b in contents.budgets if b.metric == metric]
    x = axis_of(metric, [*tried, *contents.front, contents.best], [b.limit for b in limits])
    y = axis_of(VAL_ACCURACY, [])
    # steps, because nothing is known between two networks; with more objectives the front is a surface and has no line
    mode = "lines+markers" if len(contents.objectives) == 1 else "markers"
    figure = go.Figure(
        [
            _points((x, y), tried, [f"trial {t.number}" for t in contents.evaluated], ("evaluated", "trials", "markers")),
            _points((x, y), contents.front, ["on the front"] * len(contents.front), ("front", "front", mode)),
            _points((x, y), [contents.best], ["best network"], ("best", "best", "markers")),
        ]
    )
    figure.update_xaxes(range=span([v for trace in figure.data for v in trace.x] + [x.factor * b.limit for b in limits]))
    for budget in limits:
        text = f"budget {html.escape(budget.text)}"
        place = {"textangle": -90, "xanchor": "right", "xshift": -3, "yanchor": "top", "y": 1, "yref": "paper"}
        figure.add_vline(x.factor * budget.limit, line_dash="dash", line_width=1.5, annotation={"text": text, **place})
    return _finish(figure, x.label, y.label)


def progress_figure(contents: Contents) -> str:
    """Best validation accuracy of a network within the budget, by trial."""
    rows = contents.evaluated
    numbers, scores = [t.number for t in rows], [100 * t.network.metrics[VAL_ACCURACY] for t in rows]
    hover = "trial %{x}: %{y:.2f}%<extra></extra>"
    figure = go.Figure(
        [
            go.Scatter(x=numbers, y=scores, mode="markers", name="evaluated", meta="trials", hovertemplate=hover),
            go.Scatter(
                x=numbers, y=list(accumulate(scores, max)), mode="lines", name="best so far", meta="front",
                line={"shape": "hv"}, hovertemplate="best after " + hover,
            ),
        ]
    )  # fmt: skip
    return _finish(figure, "trial", "validation accuracy (%)")


def kept_figure(pruning: Pruning) -> str:
    """The share of its channels that each group kept, as bars in order of execution."""
    text = [f"{html.escape(k.group)}: {k.kept} of {k.width}" for k in pruning.kept]
    shares = [100 * k.share for k in pruning.kept]
    bars = go.Bar(x=[k.group for k in pruning.kept], y=shares, text=text, meta="front", hovertemplate="%{text}<extra></extra>")
    figure = go.Figure([bars.update(textposition="none", showlegend=False)])
    figure.update_yaxes(range=[0, 100]).update_xaxes(showticklabels=len(shares) <= 12)
    return _finish(figure, "group of channels", "kept (%)")


def latency_figure(contents: Contents) -> str:
    """Measured against predicted latency of the timed networks that have a prediction, one trace for each predictor."""
    groups = by_attempt(contents.timings)
    limits = [b for b in contents.budgets if b.metric == "latency_ms"]
    ends = span(extent(contents.timings) + [b.limit for b in limits])
    exact = go.Scatter(
        x=ends, y=ends, mode="lines", name="measured as predicted", meta="budget", line={"dash": "dot"}, hoverinfo="skip"
    )
    figure = go.Figure([exact, *(_timings(attempt, group, len(groups) > 1) for attempt, group in groups.items())])
    figure.update_xaxes(range=ends).update_yaxes(range=ends)
    for budget in limits:
        text = {"text": f"budget {html.escape(budget.text)}"}
        figure.add_hline(budget.limit, line_dash="dash", line_width=1.5, annotation=text, annotation_position="top left")
    return _finish(figure, "predicted latency (ms)", "measured latency (ms)")


def _timings(attempt: int, timings: Sequence[Timed], several: bool) -> go.Scatter:
    x, y, bars = coordinates(timings)
    look = attempt % len(SYMBOLS)
    return go.Scatter(
        x=x,
        y=y,
        error_y={"array": bars, "thickness": 1.2, "width": 3},
        text=[_timing_hover(t) for t in timings],
        name=f"{predictor_state(attempt) if several else 'timed networks'} ({len(timings)})",
        meta=f"attempt{look}",
        mode="markers",
        marker={"symbol": SYMBOLS[look], "size": 9},
        hovertemplate="%{text}<extra></extra>",
    )


def _timing_hover(timed: Timed) -> str:
    numbers = {"predicted": timed.predicted_ms, "measured": timed.measured_ms, "interquartile range": timed.spread_ms}
    lines = [f"{name}: {show('latency_ms', value)}" for name, value in numbers.items()]
    lines += [f"predicted {off(timed.error)} off", *timed.context.split("; ")]
    return "<br>".join([f"<b>{html.escape(timed.key)}</b>", *map(html.escape, lines)])


def _points(
    scales: tuple[Axis, Axis], networks: Sequence[Network], notes: Sequence[str], style: tuple[str, str, str]
) -> go.Scatter:
    x, y = (scale.of(networks) for scale in scales)
    name, colour, mode = style
    text = [_hover(network, note) for network, note in zip(networks, notes, strict=True)]
    return go.Scatter(
        x=x, y=y, text=text, name=name, meta=colour, mode=mode, line={"shape": "hv"}, hovertemplate="%{text}<extra></extra>"
    )


def _hover(network: Network, note: str) -> str:
    lines = [f"{name_of(m)}: {show(m, network.metrics[m])}" for m in metric_names([network])]
    return "<br>".join([f"<b>{html.escape(network.key)}</b>, {note}", *map(html.escape, lines)])


def _finish(figure: go.Figure, x: str, y: str) -> str:
    """Label and serialize; `<` is escaped, so that no text can end the script element that holds the figure."""
    figure.update_layout(
        template="none",
        xaxis_title=x,
        yaxis_title={"text": y, "standoff": 10},  # else long tick labels run into it
        margin={"l": 60, "r": 16, "t": 36, "b": 56},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hovermode="closest",
    )
    return str(figure.to_json()).replace("<", "\\u003c")
