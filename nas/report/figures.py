"""The interactive figures of the page, as JSON for plotly.js: lines, points and bars, which its basic bundle knows.

A trace's `meta` is the name of its colour; nas/report/assets/figures.js paints it for a light, a dark or a printed page.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas.report.contents import Contents
from nas.report.history import History
from nas.report.latency import Timed, by_attempt, coordinates, extent
from nas.report.layers import BlockCost
from nas.report.pruning import Pruning
from nas.report.training import Curve
from nas.report.words import format_name, off, predictor_state, show, span

# of the predictors, one after the other; colours series0 to series3 of nas/report/assets/style.css go with them
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
# times the largest latency
FAR = 3
Trace = dict[str, Any]


def progress_figure(history: History) -> str:
    """Validation accuracy by trial: all that were evaluated, and the best that kept the budgets so far."""
    shown = history.shown
    hover = "trial %{x}: %{y:.2f}%<extra></extra>"
    tried = _points([n for n, _ in shown], [100 * v for _, v in shown], "evaluated", "trials")
    best = _line([n for n, _ in history.best], [100 * v for _, v in history.best], "best within the budget", "front")
    best["line"] = {"shape": "hv"}
    return to_json([tried | {"hovertemplate": hover}, best | {"hovertemplate": "best after " + hover}],
                   axis("trial"), axis("validation accuracy (%)"))  # fmt: skip


def volume_figure(history: History) -> str:
    """Hypervolume of the front and share of trials that kept the budgets, in percent, by trial."""
    lines = (("hypervolume of the front", "front", history.volume), ("trials within the budget", "series1", history.feasible))
    traces = [
        _line([n for n, _ in values], [100 * v for _, v in values], name, colour)
        | {"hovertemplate": f"{name} after trial %{{x}}: %{{y:.1f}}%<extra></extra>"}
        for name, colour, values in lines
        if values
    ]
    return to_json(traces, axis("trial"), axis("%", range=[0, 103]))


def kept_figure(pruning: Pruning) -> str:
    """The share of its channels that each group kept, as bars in order of execution."""
    text = [f"{html.escape(k.group)}: {k.kept} of {k.width}" for k in pruning.kept]
    bars = _bars([k.group for k in pruning.kept], [100 * k.share for k in pruning.kept], "kept", "front", text)
    return to_json([bars | {"showlegend": False}], _names("group of channels", len(text)), axis("kept (%)", range=[0, 100]))


def cost_figure(blocks: Sequence[BlockCost], names: tuple[str, str]) -> str:
    """Multiply-adds of each block of the chosen network beside those of the reference, `names` in this order."""
    labels = [b.name for b in blocks]
    sides, traces = ([b.chosen for b in blocks], [b.reference for b in blocks]), []
    for name, colour, values in zip(names, ("front", "reference"), sides, strict=True):
        text = [f"{html.escape(b)}, {html.escape(name)}: {show('macs', v)}" for b, v in zip(labels, values, strict=True)]
        traces.append(_bars(labels, [v or 0 for v in values], html.escape(name), colour, text))
    return to_json(traces, _names("block", len(labels)), axis("multiply-adds"))


def training_figure(curves: Sequence[Curve]) -> str:
    """Loss against the part of the training that is done, a line for each training."""
    traces = [
        _line([100 * p for p in c.parts], list(c.losses), html.escape(c.name), f"series{i % 8}")
        | {"hovertemplate": f"{html.escape(c.name)}, %{{x:.0f}}%: loss %{{y:.4g}}<extra></extra>"}
        for i, c in enumerate(curves)
    ]
    return to_json(traces, axis("part of the training (%)"), axis("loss"))


def sensitivity_figure(layers: Sequence[Mapping[str, Any]]) -> str:
    """Sensitivity of each layer whose sensitivity is known, as bars, a colour for each width in bits."""
    known = [x for x in layers if x.get("sensitivity") is not None]
    traces = []
    for i, bits in enumerate(sorted({str(x["weight_bits"]) for x in known})):
        mine = [x for x in known if str(x["weight_bits"]) == bits]
        name = html.escape(format_name(bits))
        text = [f"{html.escape(str(x['name']))}: {x['sensitivity']:.4g}, {name}" for x in mine]
        values = [x["sensitivity"] for x in mine]
        bars = _bars([str(x["name"]) for x in mine], values, name, f"series{i % 8}", text)
        traces.append(bars | {"showlegend": True})
    order = {"categoryorder": "array", "categoryarray": [str(x["name"]) for x in known]}
    return to_json(traces, _names("layer", len(known)) | order, axis("sensitivity"))


def latency_figure(contents: Contents) -> str:
    """Measured against predicted latency of the timed networks that have a prediction, one trace for each predictor."""
    groups = by_attempt(contents.timings)
    limits = [b for b in contents.budgets if b.metric == "latency_ms"]
    shown = extent(contents.timings)
    # one that is far above all networks would leave no room for them
    far = [b for b in limits if b.limit > FAR * max(shown)]
    ends = span(shown + [b.limit for b in limits if b not in far])
    exact = _line(list(ends), list(ends), "measured as predicted", "budget") | {"line": {"dash": "dot"}, "hoverinfo": "skip"}
    traces = [exact, *(_timings(attempt, group, len(groups) > 1) for attempt, group in groups.items())]
    shapes = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": b.limit,
            "y1": b.limit,
            "line": {"dash": "dash", "width": 1.5},
        }
        for b in limits
        if b not in far
    ]
    notes = [
        {"text": f"budget {html.escape(b.text)}{' ↑' if b in far else ''}", "xref": "paper", "x": 0, "showarrow": False}
        | {"xanchor": "left"}
        | ({"yref": "paper", "y": 1, "yanchor": "top"} if b in far else {"y": b.limit, "yanchor": "bottom"})
        for b in limits
    ]
    x, y = (axis(f"{what} latency (ms)", range=list(ends)) for what in ("predicted", "measured"))
    return to_json(traces, x, y, {"shapes": shapes, "annotations": notes})


def axis(title: str, range: Sequence[float] | None = None) -> dict[str, Any]:  # noqa: A002 - plotly's own word
    """An axis with its title, and room between the title and long tick labels."""
    return {"title": {"text": title, "standoff": 10}} | ({"range": list(range)} if range else {})


def to_json(traces: Sequence[Trace], x: Mapping[str, Any], y: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> str:
    """Serialize a figure; `<` is escaped, so that no text can end the script element that holds it. NaN is not drawn."""
    layout = {
        "xaxis": dict(x),
        "yaxis": dict(y),
        "margin": {"l": 60, "r": 16, "t": 36, "b": 56},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        **(more or {}),
    }
    return embedded({"data": list(traces), "layout": layout})


def embedded(value: object) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(_without_nan(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _without_nan(v) for name, v in value.items()}
    return [_without_nan(v) for v in value] if isinstance(value, list | tuple) else value


def _points(x: Sequence[float], y: Sequence[float], name: str, colour: str) -> Trace:
    return {"type": "scatter", "x": list(x), "y": list(y), "name": name, "meta": colour, "mode": "markers"}


def _line(x: Sequence[float], y: Sequence[float], name: str, colour: str) -> Trace:
    return _points(x, y, name, colour) | {"mode": "lines"}


def _bars(x: Sequence[str], y: Sequence[float], name: str, colour: str, text: Sequence[str]) -> Trace:
    look = {"textposition": "none", "hovertemplate": "%{hovertext}<extra></extra>", "hovertext": list(text)}
    return {"type": "bar", "x": [html.escape(v) for v in x], "y": list(y), "name": name, "meta": colour, **look}


def _names(title: str, count: int) -> dict[str, Any]:
    """An axis of names, which are written where there is room for them."""
    return axis(title) | {"type": "category", "showticklabels": count <= 12}


def _timings(attempt: int, timings: Sequence[Timed], several: bool) -> Trace:
    x, y, bars = coordinates(timings)
    look = attempt % len(SYMBOLS)
    name = f"{predictor_state(attempt) if several else 'timed networks'} ({len(timings)})"
    return _points(x, y, name, f"series{look}") | {
        "error_y": {"array": bars, "thickness": 1.2, "width": 3},
        "text": [_timing_hover(t) for t in timings],
        "marker": {"symbol": SYMBOLS[look], "size": 9},
        "hovertemplate": "%{text}<extra></extra>",
    }


def _timing_hover(timed: Timed) -> str:
    numbers = {"predicted": timed.predicted_ms, "measured": timed.measured_ms, "interquartile range": timed.spread_ms}
    lines = [f"{name}: {show('latency_ms', value)}" for name, value in numbers.items()]
    lines += [f"predicted {off(timed.error)} off", *timed.context.split("; ")]
    return "<br>".join([f"<b>{html.escape(timed.key)}</b>", *map(html.escape, lines)])
