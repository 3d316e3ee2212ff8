"""What a table predicts for a network: the sum of its units, corrected, with all that is missing or interpolated named."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from nas.budget import Metric
from nas.latency.correction import Correction, Parts, features, fit
from nas.latency.table import Calibration, Entry, LatencyTable
from nas.latency.units import Unit, channels, template, units
from nas.plan import Plan

# a network that was measured where it matters, near the budget, counts as much as so many others
REFIT_WEIGHT = 3.0


@dataclass(frozen=True)
class Prediction:
    """Time and energy of a network by a table; None where units are `missing`, which are named by their keys."""

    latency: Metric | None
    energy: Metric | None
    missing: tuple[str, ...]
    interpolated: tuple[str, ...]
    rows: tuple[tuple[Unit, Entry | None], ...]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that are known, by name."""
        known = {"latency_ms": self.latency, "energy_mj": self.energy}
        return {name: metric for name, metric in known.items() if metric is not None}


@dataclass(frozen=True)
class Predictor:
    """A table for networks of the space with id `space`, or of any.

    The correction is fitted on the networks of that space, if the table has some, and on those that were `measured` since.
    """

    table: LatencyTable
    space: str = ""
    measured: tuple[Calibration, ...] = ()

    @cached_property
    def correction(self) -> Correction | None:
        """None for a table without calibration, whose predictions are plain sums.

        Exported files may be slower or faster than plans with random weights as a whole, and a few of them are not enough to
        fit all coefficients: the calibration is first scaled to them.
        """
        own = [row for row in self.table.calibration if row.space == self.space]
        rows = own or list(self.table.calibration)
        if not self.measured:
            return fit(rows) if rows else None
        plain = fit(rows) if rows else None
        ratios = [m.latency_ms / (plain(m.features) if plain else m.features["sum_ms"]) for m in self.measured]
        scaled = [replace(row, latency_ms=row.latency_ms * median(ratios)) for row in rows]
        return fit([*scaled, *self.measured], [1.0] * len(scaled) + [REFIT_WEIGHT] * len(self.measured))

    def refitted(self, measured: Sequence[tuple[Plan, float]]) -> Predictor:
        """Take in networks and their measured times in ms; those that the table does not cover are left out."""
        rows = tuple(Calibration(given, ms, self.space) for plan, ms in measured if (given := self.features(plan)))
        return replace(self, measured=self.measured + rows)

    def features(self, plan: Plan) -> dict[str, float]:
        """Features of `plan` for the correction, empty if the table lacks a unit."""
        rows = self._rows(plan)
        entries = [entry for _, entry in rows if entry is not None]
        if len(entries) < len(rows):
            return {}
        total = sum(entry.latency_ms for entry in entries)
        return features(Parts(plan, [unit for unit, _ in rows], total, int(self.table.made.get("cache_bytes", 0))))

    def predict(self, plan: Plan) -> Prediction:
        """Predict the time, and the energy where the table has one, of one pass of the target's batch."""
        rows = self._rows(plan)
        missing = tuple(dict.fromkeys(unit.key for unit, entry in rows if entry is None))
        guessed = tuple(
            dict.fromkeys(unit.key for unit, entry in rows if entry is not None and unit.key not in self.table.entries)
        )
        if missing:
            return Prediction(None, None, missing, guessed, rows)
        given = self.features(plan)
        ms = self.correction(given) if self.correction else given["sum_ms"]
        spread = self.correction.error * ms if self.correction else None
        method = f"table {self.table.name}" if self.table.name else "latency table"
        metric = Metric(ms, "ms", method, spread, self._context(len(rows), len(guessed)))
        return Prediction(metric, self._energy(rows, method), (), guessed, rows)

    def _context(self, count: int, guessed: int) -> str:
        text = f"sum of {count} units on {self.table.target}"
        if self.correction:
            text += f"; corrected on {self.correction.networks} networks, {self.correction.error:.1%} off when left out"
        return text + (f"; {guessed} units interpolated along channels" if guessed else "")

    def _energy(self, rows: Sequence[tuple[Unit, Entry | None]], method: str) -> Metric | None:
        known = [entry.energy_mj for _, entry in rows if entry is not None and entry.energy_mj is not None]
        return Metric(sum(known), "mJ", method, None, str(self.table.target)) if len(known) == len(rows) else None

    def _rows(self, plan: Plan) -> tuple[tuple[Unit, Entry | None], ...]:
        return tuple((unit, self.entry(unit.key)) for unit in units(plan))

    def entry(self, key: str) -> Entry | None:
        """The entry of a unit; interpolated between units of the same template; None outside of what was measured."""
        if key in self.table.entries:
            return self.table.entries[key]
        if key not in self._guesses:
            self._guesses[key] = self._interpolated(key)
        return self._guesses[key]

    @cached_property
    def _guesses(self) -> dict[str, Entry | None]:
        return {}  # of `_interpolated`, which is slow and asked for the same units again and again

    @cached_property
    def _grids(self) -> Mapping[str, dict[tuple[int, ...], Entry]]:
        """Entries by template and channel counts."""
        grids: dict[str, dict[tuple[int, ...], Entry]] = {}
        for key, entry in self.table.entries.items():
            grids.setdefault(template(key), {})[channels(key)] = entry
        return grids

    def _interpolated(self, key: str) -> Entry | None:
        grid = self._grids.get(template(key), {})
        wanted = channels(key)
        first = {n: i for i, n in reversed(list(enumerate(wanted)))}
        ties = tuple(first[n] for n in wanted)  # channels that are equal by construction stay equal
        points = {point: e for point, e in grid.items() if all(point[i] == point[tie] for i, tie in enumerate(ties))}
        free = sorted(set(ties))
        ms = _multilinear({tuple(p[i] for i in free): e.latency_ms for p, e in points.items()}, tuple(wanted[i] for i in free))
        return None if ms is None else Entry(ms, note="interpolated")


def _multilinear(points: Mapping[tuple[int, ...], float], wanted: tuple[int, ...]) -> float | None:
    """Interpolate linearly along one axis after the other, between the nearest neighbours; None outside of the points."""
    if not points:
        return None
    if not wanted:
        return points.get(())
    values = sorted({p[0] for p in points})

    def at(value: int) -> float | None:
        return _multilinear({p[1:]: ms for p, ms in points.items() if p[0] == value}, wanted[1:])

    place = bisect_left(values, wanted[0])
    if place < len(values) and values[place] == wanted[0] and (exact := at(values[place])) is not None:
        return exact
    below = next((v for v in reversed(values[:place]) if at(v) is not None), None)
    above = next((v for v in values[place:] if v > wanted[0] and at(v) is not None), None)
    if below is None or above is None:
        return None
    low, high = at(below), at(above)
    assert low is not None and high is not None
    return low + (high - low) * (wanted[0] - below) / (above - below)
