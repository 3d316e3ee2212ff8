"""What `nas diff` prints: a table for each section that differs, and which sections do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.cli.table import print_table
from nas.report.words import ABSENT, duration, name_of, plain, show

SECTIONS = {"settings": "Settings", "versions": "Versions", "device": "Device", "data": "Data"}
LONGEST = 60
Json = Mapping[str, Any]


def print_difference(found: Json) -> None:
    """Print what `nas.cli.diffing.compared` found."""
    for note in found["notes"]:
        print(f"note: {note}")
    for section, title in SECTIONS.items():
        rows = [[name, _plain(pair, "a"), _plain(pair, "b")] for name, pair in found[section].items()]
        _section(found, title, rows)
    _section(found, "Budgets", [[name_of(name), *_verdicts(pair)] for name, pair in found["budgets"].items()])
    _section(found, "Best network", [_result(name, row) for name, row in found["results"].items()], ["change"])
    _front(found)
    choices = [[name, _plain(pair, "a"), _plain(pair, "b")] for name, pair in found["architecture"].items()]
    _section(found, "Architecture of the best network", choices)
    same = [title.lower() for section, title in SECTIONS.items() if not found[section]]
    if same:
        print(f"the same: {', '.join(same)}")


def _section(found: Json, title: str, rows: Sequence[Sequence[str]], more: Sequence[str] = ()) -> None:
    if rows:
        heads = [(title, "left"), *((name, "right") for name in (found["a"], found["b"], *more))]
        print_table(heads, rows)
        print()


def _plain(pair: Json, side: str) -> str:
    """A value; one that is not there, or a setting that was left to its default, is a dash."""
    value = pair.get(side)
    if value is None or value == []:
        return ABSENT
    text = ", ".join(map(str, value)) if isinstance(value, list) else plain(value) if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _verdicts(pair: Json) -> list[str]:
    return [_verdict(pair.get("a")), _verdict(pair.get("b"))]


def _verdict(row: Json | None) -> str:
    if row is None:
        return ABSENT
    return f"{row['text']}: {show(row['metric'], row.get('value'))}, {'kept' if row['ok'] else 'BROKEN'}"


def _result(name: str, row: Json) -> list[str]:
    values = [_shown(name, row[side]) if side in row else ABSENT for side in "ab"]
    return [name_of(name), *values, _change(name, row)]


def _shown(name: str, value: float) -> str:
    return duration(value) if name == "seconds" else f"{value:.2%}" if "accuracy" in name else show(name, value)


def _change(name: str, row: Json) -> str:
    if "difference" not in row:
        return ""
    if row["difference"] == 0:
        return "="
    if "accuracy" in name:
        return f"{100 * row['difference']:+.2f} points"
    within = ", within the spread" if abs(row["difference"]) <= row.get("spread", 0.0) else ""
    return f"{row['percent']:+.1f}%{within}" if "percent" in row else f"{row['difference']:+.6g}"


def _front(found: Json) -> None:
    front = found["front"]
    if "reason" in front:
        print(f"the fronts are not compared: {front['reason']}\n")
        return
    sides = [front[side] for side in "ab"]
    ratio = sides[1]["hypervolume"] / sides[0]["hypervolume"] - 1 if sides[0]["hypervolume"] else 0.0
    rows = [
        ["networks", *(str(side["networks"]) for side in sides), ""],
        ["beaten by the other front", *(str(side["beaten"]) for side in sides), ""],
        ["hypervolume", *(f"{side['hypervolume']:.4f}" for side in sides), f"{ratio:+.1%}" if ratio else "="],
    ]
    costs = ", ".join(name_of(name) for name in front["objectives"][1:])
    _section(found, f"Front by validation error and {costs}", rows, ["change"])
