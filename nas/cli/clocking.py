"""Sizes candidates to a budget in ms: how many multiply-adds it allows differs from form to form, so they are timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nas.cli.choosing import Candidate, Wanted
from nas.cli.latency import LATENCY
from nas.cli.space import QUICK

ROUNDS = 5
# of a limit in ms: another timing of the same network differs by a few percent
PART = 0.94
NEAR = 0.92


def by_the_clock(found: Sequence[Candidate], wanted: Wanted) -> list[Candidate]:
    """The candidates refitted until their largest networks take what a budget in ms allows, timed side by side.

    What cannot be made fast enough is left out; if that is all of them, the fastest one stays. Without such a budget they stay
    as they are.
    """
    limits = [PART * b.limit for b in wanted.budgets if b.metric == LATENCY and not b.relative]
    if not found or not limits or wanted.bench is None:
        return list(found)
    bench, limit = replace(wanted.bench, measuring=QUICK), min(limits)
    times: dict[str, float] = {}
    timed: dict[str, Candidate] = {}
    best: dict[object, Candidate] = {}
    tried = list(found)
    for _ in range(ROUNDS):
        plans = {c.space.id: c.space.plan(c.space.largest()) for c in tried if c.space.id not in times}
        if not plans:
            break
        times |= {name: timing.ms for name, timing in bench.time_plans(plans).items()}
        tried = [replace(c, cost={**c.cost, LATENCY: times[c.space.id]}) for c in tried]
        timed |= {c.space.id: c for c in tried}
        for candidate in tried:
            shape = (candidate.family, candidate.form.macro, candidate.form.side)
            if candidate.cost[LATENCY] <= limit and (shape not in best or candidate.macs > best[shape].macs):
                best[shape] = candidate
        off = [c for c in tried if not NEAR * limit <= c.cost[LATENCY] <= limit]
        paced = (c.form.paced(c.macs * limit / c.cost[LATENCY]).at(1.0, wanted) for c in off)
        tried = [candidate for candidate in paced if candidate]
    kept = best.values() or [min(timed.values(), key=lambda c: c.cost[LATENCY])]
    return sorted({c.space.id: c for c in kept}.values(), key=lambda c: -c.macs)
