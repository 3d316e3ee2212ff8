"""The picture of a model card: the place of the delivered network on the front. A small SVG that reads on light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nas.report.contents import VAL_ACCURACY, Network, network
from nas.report.words import axis_of, show, span

PICTURE = "front.svg"
WIDTH, HEIGHT = 480, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 44
# readable on white and on black alike
FRONT, BEST, QUIET = "#2b8cc4", "#d55e00", "#767676"


def front_picture(summary: Mapping[str, Any]) -> str:
    """Draw the front of a summary and its best network; empty where there are fewer than two networks to draw."""
    best, limits = network(summary["best"]), list(summary.get("budget", ()))
    metric = next((b["metric"] for b in limits if b["metric"] in best.metrics), "macs")
    front = [n for n in map(network, summary.get("front", ())) if {metric, VAL_ACCURACY} <= set(n.metrics)]
    if len(front) < 2 or not {metric, VAL_ACCURACY} <= set(best.metrics):
        return ""
    limit = next((b for b in limits if b["metric"] == metric), None)
    plot = _Plot(metric, front, best, limit["limit"] if limit else None)
    # with more than one budget the front is a surface, and has no line
    return plot.svg(limit["text"] if limit else "", len(limits) < 2)


class _Plot:
    """Scales of both axes, and what is drawn with them."""

    def __init__(self, metric: str, front: Sequence[Network], best: Network, limit: float | None) -> None:
        self.front, self.best, self.limit = front, best, limit
        self.x = axis_of(metric, [*front, best], [limit] if limit is not None else [])
        self.y = axis_of(VAL_ACCURACY, [])
        shown = [*front, best]
        self.across = span(self.x.of(shown) + ([self.x.factor * limit] if limit is not None else []))
        self.up = span(self.y.of(shown))

    def svg(self, text: str, joined: bool) -> str:
        """The picture; `text` is the budget as it was written, and the front may be `joined` by steps."""
        points = [self._place(n) for n in self.front]
        steps = " ".join(f"{'H' if i else 'M'}{x:.1f}{f' V{y:.1f}' if i else f' {y:.1f}'}" for i, (x, y) in enumerate(points))
        line = f'<path d="{steps}" fill="none" stroke="{FRONT}" stroke-width="1.6"/>' if joined else ""
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{FRONT}"/>' for x, y in points)
        told = f"{show(self.x.metric, self.best.metrics[self.x.metric])}, {show(VAL_ACCURACY, self.best.metrics[VAL_ACCURACY])}"
        title = f"The delivered network ({told}, validation) among {len(points)} of the front"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'role="img" font-family="sans-serif" font-size="12" fill="{QUIET}"><title>{escape(title)}</title>{self._frame()}'
            f"{self._budget(text)}{line}{dots}{self._star()}"
            f'<text x="{LEFT}" y="16">{escape("★ delivered: " + told)}</text></svg>\n'
        )

    def _place(self, shown: Network) -> tuple[float, float]:
        return self._x(self.x.of([shown])[0]), self._y(self.y.of([shown])[0])

    def _x(self, value: float) -> float:
        low, high = self.across
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        low, high = self.up
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def _frame(self) -> str:
        """Axes with a few round numbers each."""
        floor = HEIGHT - BOTTOM
        parts = [f'<path d="M{LEFT} {TOP} V{floor} H{WIDTH - RIGHT}" fill="none" stroke="{QUIET}"/>']
        parts += [
            f'<text x="{self._x(v):.1f}" y="{floor + 16}" text-anchor="middle">{v:g}</text>' for v in _ticks(*self.across)
        ]
        parts += [f'<text x="{LEFT - 6}" y="{self._y(v) + 4:.1f}" text-anchor="end">{v:g}</text>' for v in _ticks(*self.up)]
        middle, height = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(self.x.label)}</text>')
        parts.append(f'<text transform="translate(12 {height}) rotate(-90)" text-anchor="middle">{escape(self.y.label)}</text>')
        return "".join(parts)

    def _budget(self, text: str) -> str:
        if self.limit is None:
            return ""
        x = self._x(self.x.factor * self.limit)
        line = f'<path d="M{x:.1f} {TOP} V{HEIGHT - BOTTOM}" stroke="{QUIET}" stroke-dasharray="5 4"/>'
        return f'{line}<text transform="translate({x - 5:.1f} {TOP + 4}) rotate(-90)" text-anchor="end">{escape(text)}</text>'

    def _star(self) -> str:
        x, y = self._place(self.best)
        corners = [
            (r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5))
            for i in range(10)
            for r in (9 if i % 2 == 0 else 4,)
        ]
        points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        return f'<polygon points="{points}" fill="{BEST}" stroke="white" stroke-width=".8"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between the ends."""
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= 6)
    first = math.ceil(low / step)
    return [round((first + i) * step, 10) for i in range(int((high - first * step) / step + 1e-9) + 1)]
