"""The space of a command: from options, from a run, and sized to budgets, those in ms included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nas.architecture import SearchSpace
from nas.budget import Budget
from nas.cost.counting import count
from nas.cost.measure import MeasureSettings
from nas.errors import InvalidSetting, did_you_mean
from nas.latency.bench import Bench
from search_spaces import SPACES, Family
from search_spaces.staged import DataShape

# of numbers in --set
LEAST_OPTION, MOST_OPTION = 0.001, 10_000
# enough to size a space by
QUICK = MeasureSettings(rounds=3, extra_rounds=2, steady_within=0.3, most_warmups=8)


def space_of(config: dict[str, Any]) -> SearchSpace:
    """Build the space that a run's configuration names."""
    stored = config["space"]
    family = SPACES.get(stored["name"])
    if family is None or family.space.version != stored["version"]:
        raise InvalidSetting(f"space {stored['name']!r} version {stored['version']} is not known to this netcarver")
    return family.space.from_settings(stored["settings"])


def space_options(family: Family, texts: tuple[str, ...]) -> Any:  # noqa: ANN401
    """Read `name=value` settings into the options of a space. Raises InvalidSetting."""
    values: dict[str, object] = {}
    fields = family.options.__dataclass_fields__
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in fields:
            near = did_you_mean(name, fields)
            raise InvalidSetting(f"--set {text!r} is not NAME=VALUE with a NAME of {', '.join(fields)}{near}")
        values[name] = _read(text, value, fields[name].default)
    return family.options(**values)


def _read(text: str, value: str, default: Any) -> object:  # noqa: ANN401
    """Read a value of the default's type; a tuple is a comma-separated list."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[value.lower()]
        if isinstance(default, tuple):
            return tuple(_number(float(v) if "." in v else int(v)) for v in value.split(","))
        return _number(type(default)(value))
    except (ValueError, KeyError) as cause:
        numbers = f", and numbers from {LEAST_OPTION} to {MOST_OPTION:,}" if isinstance(default, float | int | tuple) else ""
        raise InvalidSetting(f"--set {text!r}: expected a value like {default!r}{numbers}") from cause


def _number(value: Any) -> Any:  # noqa: ANN401 - also what is no number
    """The value. Raises ValueError for a number that no space has a use for."""
    if isinstance(value, int | float) and value and not LEAST_OPTION <= abs(value) <= MOST_OPTION:  # NaN is not, either
        raise ValueError(value)
    return value


def sizing(
    budgets: tuple[Budget, ...],
    family: Family,
    shape: DataShape,
    options: Any,  # noqa: ANN401
    bench: Bench | None,
) -> Iterator[Budget]:
    """The budgets that a space is sized to: those in ms as multiply-adds."""
    for budget in budgets:
        in_ms = budget.metric == "latency_ms" and not budget.relative
        yield in_macs(budget, family, shape, options, bench) if bench and in_ms else budget


def in_macs(budget: Budget, family: Family, shape: DataShape, options: Any, bench: Bench) -> Budget:  # noqa: ANN401
    """About how many multiply-adds a limit in ms allows, from the largest networks of the family's macro-architectures."""
    quick, points = replace(bench, measuring=QUICK), []
    for macro in reversed(family.macros):  # from small to large, and none that is larger than need be
        space = family.make(shape, macro, 1.0, options)
        plan = space.plan(space.largest())
        points.append((quick.time_plans({"": plan})[""].ms, count(plan).values()["macs"]))
        if points[-1][0] > budget.limit:
            break
    nearest = min(points, key=lambda p: abs(p[0] - budget.limit))
    return replace(budget, metric="macs", limit=nearest[1] * budget.limit / nearest[0])
