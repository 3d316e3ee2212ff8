"""Allocation by time: channels go where they cost most time, and only down to widths at which the network becomes faster."""

from __future__ import annotations

from dataclasses import replace

from compress.prune.fitting import settle, shrink
from compress.prune.problem import Keep, Problem
from nas.budget import Budget
from nas.errors import InvalidSetting

METRIC = "latency_ms"
# a width is faster than a wider one if it saves so much of what a group can save: less is noise
STEP = 0.01


def latency(problem: Problem) -> Keep:
    """Cut what loses least importance for each ms that it saves, slow groups first, until all budgets hold.

    Kernels work on blocks of channels: time falls in steps along the width. Of a group only the widest widths of each step are
    used, as its own width-against-time curve shows them. Raises InvalidSetting where nothing tells the time.
    """
    clock = _clock(problem)
    problem.check()
    places = {name: _places(clock, name) for name in clock.options}
    keep = shrink(problem, problem.whole, places, lambda widths: float(clock.usage(widths)[0]))
    return settle(problem, keep, places)


def curve(clock: Problem, name: str) -> dict[int, float]:
    """Time of the network by the units that one group keeps, while all others are whole; in ms where `clock` has ms."""
    return {units: float(clock.usage({**clock.whole, name: units})[0]) for units in clock.options[name]}


def _places(clock: Problem, name: str) -> tuple[int, ...]:
    """The widths where the curve of a group steps down, ascending, and its smallest one in any case."""
    times = curve(clock, name)
    fastest = times[max(times)]
    margin = STEP * max(0.0, fastest - min(times.values()))
    places = {min(times), max(times)}
    for units in sorted(times, reverse=True):
        if times[units] < fastest - margin:
            places.add(units)
            fastest = times[units]
    return tuple(sorted(places))


def _clock(problem: Problem) -> Problem:
    """The same problem whose only usage is the time in ms."""
    limited = [budget.metric for budget in problem.budgets]
    known = [*limited, *problem.widths.cost({}).metrics]
    timed = next((name for name in known if name.split("@")[0] == METRIC), None)
    if timed is None:
        raise InvalidSetting("allocation 'latency' needs times, and nothing tells any; give a latency table, or use 'rd'")
    return replace(problem, budgets=(Budget("time", timed, 1.0),))
