"""Rows of `nas spaces`."""

from __future__ import annotations

import re

from nas.budget import format_value, parse_all
from nas.cost.counting import count
from nas.errors import InvalidSetting
from nas.numbers import counted
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape


def list_spaces(budgets: tuple[str, ...], shape: str) -> list[dict[str, object]]:
    """One row a space. Raises InvalidSetting for a shape that is not like 3x32x10."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", shape)
    if not match:
        raise InvalidSetting(f"--shape {shape!r} was not understood; write channels x resolution x classes, like 3x32x10")
    data, parsed = DataShape(*map(int, match.groups())), parse_all(budgets)
    rows: list[dict[str, object]] = []
    for name, family in SPACES.items():
        space = sized(family, data, parsed, family.options())
        small, large = (count(space.plan(a)).values() for a in (space.smallest(), space.largest()))
        row = {"name": name, "id": space.id, "decisions": len(space.choices), "networks": space.size()}
        rows.append({**row, "smallest": small, "largest": large, "options": list(family.options.__dataclass_fields__)})
    return rows


def table(rows: list[dict]) -> str:
    """The rows as text."""
    lines = []
    for row in rows:
        span = (f"{format_value(m, row['smallest'][m])} to {format_value(m, row['largest'][m])}" for m in ("macs", "params"))
        lines.append(f"{row['name']:<10} {counted(row['networks'])} networks of {row['decisions']} decisions")
        lines.append(f"{'':10} multiply-adds {next(span)}, parameters {next(span)}")
        lines.append(f"{'':10} settings (--set): {', '.join(row['options'])}")
    return "\n".join(lines)
