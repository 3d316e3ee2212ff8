"""Bench: measures plans and files on one target, and grows a table with them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path

from torch import Tensor

from nas.architecture import SearchSpace
from nas.cost.measure import MeasureSettings, Timing, load, measure
from nas.latency.machine import cache_bytes, pinned, target_of
from nas.latency.predictor import Predictor
from nas.latency.table import Calibration, Entry, LatencyTable
from nas.latency.target import Target
from nas.latency.units import Unit, units
from nas.plan import INPUT, Plan
from nas.runtimes import check, named
from nas.runtimes.cuda_clock import current_device, event_timer
from nas.runtimes.runtime import Kernel, Runtime, Setting
from nas.seeding import numpy_rng

UNITS_AT_ONCE = 64
CALIBRATION_NETWORKS = 32


@dataclass(frozen=True)
class Bench:
    """A runtime on this machine, how it is set, and how times are taken."""

    name: str
    setting: Setting
    measuring: MeasureSettings = field(default_factory=MeasureSettings)

    def __post_init__(self) -> None:
        """Check that the runtime is there and can do what is asked. Raises InvalidSetting, MissingPackage."""
        check(self.name, self.setting)

    @property
    def target(self) -> Target:
        """What its times belong to."""
        return target_of(self.name, self.setting)

    def empty_table(self) -> LatencyTable:
        """A table for this target without entries."""
        made = {"source": "measured by netcarver", "cache_bytes": cache_bytes(self.setting.device)}
        return LatencyTable(self.target, made=made)

    def time_plans(self, plans: Mapping[str, Plan]) -> dict[str, Timing]:
        """Time plans with random weights, interleaved."""
        return self._time({name: partial(self._runtime.build, plan, self.setting) for name, plan in plans.items()})

    def time_files(self, examples: Mapping[Path, Tensor]) -> dict[Path, Timing]:
        """Time exported files, each on its example (N, C, H, W), interleaved."""
        builders = {str(path): partial(self._runtime.load, path, x, self.setting) for path, x in examples.items()}
        return {Path(name): timing for name, timing in self._time(builders).items()}

    @property
    def _runtime(self) -> Runtime:
        return named(self.name)

    def _time(self, builders: Mapping[str, Callable[[], Kernel]]) -> dict[str, Timing]:
        on_card = self.setting.device_type == "cuda"
        measuring = replace(self.measuring, timer=event_timer) if on_card else self.measuring
        # a runtime's threads stay on the cores that they were started on
        with pinned(self.setting.threads), current_device(self.setting):
            return measure({name: build() for name, build in builders.items()}, measuring)


def units_of(space: SearchSpace) -> list[Unit]:
    """All units that networks of `space` consist of, each once."""
    options = {choice.name: choice.options for choice in space.choices}
    found: dict[str, Unit] = {}
    for block in space.blocks:
        for values in product(*(options[name] for name in block.depends_on)):
            layers = tuple(block.build(dict(zip(block.depends_on, values, strict=True)), INPUT))
            if layers:
                found.update({unit.key: unit for unit in units(Plan(layers[0].in_channels, layers[0].in_size, layers))})
    return list(found.values())


def lacking(table: LatencyTable, wanted: Sequence[Unit]) -> list[Unit]:
    """Those of the units that `table` has no entry for."""
    return [unit for unit in wanted if unit.key not in table.entries]


def with_units(bench: Bench, table: LatencyTable, wanted: Sequence[Unit]) -> Iterator[LatencyTable]:
    """Measure the units that `table` lacks, some at a time; yields the grown table after each batch."""
    missing = lacking(table, wanted)
    for start in range(0, len(missing), UNITS_AT_ONCE):
        times = bench.time_plans({unit.key: unit.plan for unit in missing[start : start + UNITS_AT_ONCE]})
        entries = {key: Entry(t.ms, t.spread_ms, t.rounds, t.calls, note=t.note) for key, t in times.items()}
        table = replace(table, entries={**table.entries, **entries}, made={**table.made, **now()})
        yield table


def calibrated(bench: Bench, table: LatencyTable, space: SearchSpace, seed: int = 0) -> LatencyTable:
    """Measure random networks of `space` whole, which the correction is fitted on."""
    rng = numpy_rng(seed, "calibration", space.id)
    drawn = {arch.key: arch for arch in (space.sample(rng) for _ in range(CALIBRATION_NETWORKS))}
    plans = {key: space.plan(arch) for key, arch in drawn.items()}
    times, predictor = bench.time_plans(plans), Predictor(table)
    rows = tuple(Calibration(predictor.features(plan), times[key].ms, space.id) for key, plan in plans.items())
    kept = tuple(row for row in table.calibration if row.space != space.id)
    return replace(table, calibration=kept + rows, made={**table.made, **now()})


def is_calibrated(table: LatencyTable, space: SearchSpace) -> bool:
    """Whether the correction of `table` was fitted on networks of `space`."""
    return any(row.space == space.id for row in table.calibration)


def now() -> dict[str, str]:
    """When it is, and what else the machine does."""
    return {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "load": load()}
