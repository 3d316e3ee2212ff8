"""What good networks have in common: which options the front takes more often than all that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nas.report.choices import ChoiceEffect, OptionShare, choice_effects
from nas.report.contents import Contents
from nas.report.parts import NOTHING, Section, code, folded, quiet, share_bar, table
from nas.report.words import name_of

MOST_SHOWN, MOST_OPTIONS = 12, 8
HEADINGS = ["choice", "#explains of the accuracy", "#at equal cost", "#best to worst option", "options: all against the front"]


def common(contents: Contents) -> Section | None:
    """The choices, those that explain most first."""
    effects = choice_effects(contents)
    if not effects:
        return None
    cost = name_of(contents.objectives[0])
    note = quiet(
        "How much of the variance of validation accuracy a choice explains alone (epsilon squared), and of what is left of "
        f"the accuracy at equal {escape(cost)}. Choices that go together share what they explain. "
        '<span class="key"></span>all networks that have the choice <span class="key front"></span>those of the front '
        f"({len(contents.front)})"
    )
    content = note + _table(effects[:MOST_SHOWN])
    if len(effects) > MOST_SHOWN:
        content += folded(f"{len(effects) - MOST_SHOWN} more choices", _table(effects[MOST_SHOWN:], "More choices"))
    return Section("common", "What good networks have in common", content)


def _table(effects: Sequence[ChoiceEffect], caption: str = "Choices") -> str:
    rows = [
        [code(e.name), share_bar(e.explained), share_bar(e.at_equal_cost), _points(e.effect), _options(e.options)]
        for e in effects
    ]
    return table(caption, HEADINGS, rows)


def _points(effect: float | None) -> str:
    return NOTHING if effect is None else f"{100 * effect:.1f} points"


def _options(options: Sequence[OptionShare]) -> str:
    lines = []
    shown = sorted(options, key=lambda o: -(o.front or 0.0))[:MOST_OPTIONS] if len(options) > MOST_OPTIONS else options
    for option in shown:
        front = NOTHING if option.front is None else f"{option.front:.0%}"
        widths = (("", option.population), ("front", option.front or 0.0))
        bars = "".join(f'<i class="{style}" style="width:{100 * share:.0f}%"></i>' for style, share in widths)
        lines.append(
            f'{code(option.option)}<span class="bars" aria-hidden="true">{bars}</span>'
            f"<span>{option.population:.0%} → {front}</span>"
        )
    more = quiet(f"and {len(options) - len(shown)} more options") if len(shown) < len(options) else ""
    return f'<div class="shares">{"".join(lines)}</div>{more}'
