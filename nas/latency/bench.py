"""Bench: measures plans and files on one target, and grows a table with them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, product
from pathlib import Path

import torch
from torch import Tensor

from nas.architecture import SearchSpace
from nas.cost.measure import MeasureSettings, Timing, load, measure
from nas.latency.machine import cache_bytes, device_name, pinned, target_of
from nas.latency.predictor import Predictor
from nas.latency.table import Calibration, Entry, LatencyTable
from nas.latency.target import Target
from nas.latency.units import Unit, units
from nas.plan import INPUT, Plan
from nas.runtimes import check, named, runs
from nas.runtimes.cuda_clock import current_device, event_timer
from nas.runtimes.runtime import Kernel, Runtime, Setting
from nas.seeding import numpy_rng

UNITS_AT_ONCE = 64
CALIBRATION_NETWORKS = 32
CALIBRATION_PARTS = 16
# what a verdict on a busy machine is worth
PATIENCE_MS, MOST_ROUNDS = 10_000, 600


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

    def judge_files(self, examples: Mapping[Path, Tensor]) -> dict[Path, Timing]:
        """As `time_files`; where other work disturbed that, again with as many rounds as last PATIENCE_MS."""
        times = self.time_files(examples)
        calls = self.measuring.settling_calls
        rounds = int(PATIENCE_MS / sum(timing.ms * (timing.calls + calls) for timing in times.values()))
        if all(timing.calm for timing in times.values()) or rounds <= self.measuring.extra_rounds:
            return times
        return replace(self, measuring=replace(self.measuring, extra_rounds=min(rounds, MOST_ROUNDS))).time_files(examples)

    def time_cases(self, cases: Mapping[str, tuple[Path, str]], example: Tensor) -> dict[str, Timing]:
        """Time exported files, each in a precision, on the images `example` (N, C, H, W), interleaved."""
        builders = {
            name: partial(self._runtime.load, path, example, replace(self.setting, precision=precision))
            for name, (path, precision) in cases.items()
        }
        return self._time(builders)

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
    drawn = [space.sample(rng) for _ in range(CALIBRATION_NETWORKS)]
    return _calibrated_on(bench, table, {arch.key: space.plan(arch) for arch in drawn}, space.id)


def calibrated_on_parts(bench: Bench, table: LatencyTable, plan: Plan, label: str) -> LatencyTable:
    """Measure parts of a network that belongs to no space: the correction for it is fitted on them, under `label`."""
    parts = parts_of(plan, CALIBRATION_PARTS)
    return _calibrated_on(bench, table, {str(i): part for i, part in enumerate(parts)}, label)


def parts_of(plan: Plan, count: int) -> list[Plan]:
    """Up to `count` different runs of units of `plan`, each a plan of its own, never the whole: drawn, always the same."""
    whole, rng = units(plan), numpy_rng(0, "parts")
    ends = [0, *accumulate(len(unit.plan.layers) for unit in whole)]
    chosen = {tuple(sorted(rng.integers(0, len(ends), 2).tolist())) for _ in range(4 * count)}
    runs = [(first, last) for first, last in sorted(chosen) if 0 < last - first < len(whole)]
    places = rng.permutation(len(runs))[:count]
    return [_run(plan, ends[runs[i][0]], ends[runs[i][1]]) for i in places]


def _run(plan: Plan, start: int, end: int) -> Plan:
    layers = plan.layers[start:end]
    inside = {layer.name for layer in layers}
    renamed = (replace(x, inputs=tuple(n if n in inside else INPUT for n in x.inputs)) for x in layers)
    return Plan(layers[0].in_channels, layers[0].in_size, tuple(renamed))


def _calibrated_on(bench: Bench, table: LatencyTable, plans: Mapping[str, Plan], label: str) -> LatencyTable:
    times, predictor = bench.time_plans(plans), Predictor(table)
    rows = tuple(Calibration(predictor.features(plan), times[key].ms, label) for key, plan in plans.items())
    kept = tuple(row for row in table.calibration if row.space != label)
    return replace(table, calibration=kept + rows, made={**table.made, **now()})


def bench_at(target: Target) -> Bench | None:
    """The bench of `target`, None if that is not this machine as it is now."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        setting = Setting(device, target.precision, target.batch, target.threads)
        if device_name(torch.device(device)) == target.device and runs(target.runtime, setting):
            bench = Bench(target.runtime, setting)
            return bench if bench.target == target else None
    return None


def is_calibrated(table: LatencyTable, label: str) -> bool:
    """Whether the correction of `table` was fitted on networks of the space with id `label`, or on parts of such a network."""
    return any(row.space == label for row in table.calibration)


def now() -> dict[str, str]:
    """When it is, and what else the machine does."""
    return {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "load": load()}
