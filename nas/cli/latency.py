"""What a search knows of time: the bench of its target, and a cost model for each budget in ms or mJ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from nas.architecture import SearchSpace
from nas.budget import Budget
from nas.cli.profiling import bench_for, completed, start_table
from nas.cli.settings import Settings
from nas.errors import InvalidBudget, InvalidSetting
from nas.latency.bench import Bench, units_of
from nas.latency.costing import CostModel, NamedTable, OwnLatency
from nas.latency.foreign import searchable
from nas.latency.machine import table_path
from nas.latency.predictor import Predictor
from nas.latency.table import LatencyTable, read_table
from nas.runtimes.runtime import Setting

TABLE = "latency.csv"  # in the run directory
LATENCY, ENERGY = "latency_ms", "energy_mj"
WHERE_ENERGY_IS = "give a --table with the column energy_mj"
NAMED_AT_MOST = 3


def bench_of(settings: Settings, device: torch.device) -> Bench:
    """Where the delivered network is timed. Raises InvalidSetting, MissingPackage."""
    return bench_for(settings.runtime, Setting(str(device), settings.precision, settings.batch, settings.threads or 1))


def cost_models(
    budgets: Sequence[Budget], space: SearchSpace, bench: Bench, settings: Settings, run: Path | None = None
) -> tuple[CostModel, ...]:
    """A model for each table that `budgets` need; `run` is the run directory that is gone on with.

    Raises InvalidBudget for energy that no table has, InvalidSetting for a table that does not fit.
    """
    models: list[CostModel] = []
    for name in check_tables(budgets, settings):
        accept = settings.accept_foreign_table
        models.append(NamedTable(name, searchable(name).model(space, accept)) if name else _own(space, bench, settings, run))
    _require(models, budgets, space)
    return tuple(models)


def check_tables(budgets: Sequence[Budget], settings: Settings) -> list[str]:
    """Names of the tables that budgets need, "" for that of this machine.

    Raises InvalidBudget for energy that no table has, InvalidSetting for a table that does not exist.
    """
    for budget in budgets:
        if budget.metric == ENERGY and not settings.table:
            raise InvalidBudget(f"budget {budget.text!r} needs energy, which is not measured here; {WHERE_ENERGY_IS}")
    names = dict.fromkeys(b.metric.partition("@")[2] for b in budgets if b.metric.startswith((LATENCY, ENERGY)))
    for name in names:
        if name:
            searchable(name)
        elif settings.table:
            read_table(Path(settings.table))
    return list(names)


def check_named(budgets: Sequence[Budget], space: SearchSpace, settings: Settings) -> None:
    """Raise for a published table that does not fit the space: before anything is trained."""
    models = [
        NamedTable(n, searchable(n).model(space, settings.accept_foreign_table)) for n in check_tables(budgets, settings) if n
    ]
    _require(models, [b for b in budgets if "@" in b.metric], space)


def _own(space: SearchSpace, bench: Bench, settings: Settings, run: Path | None) -> OwnLatency:
    return OwnLatency(Predictor(own_table(space, bench, settings, run), space.id))


def own_table(space: SearchSpace, bench: Bench, settings: Settings, run: Path | None) -> LatencyTable:
    """The table that a run keeps, that was asked for, or that of this machine, completed for `space`."""
    if run is not None and (run / TABLE).exists():
        return read_table(run / TABLE)
    path = Path(settings.table) if settings.table else table_path(bench.target)
    if settings.table:
        table = read_table(path)
        table.require(bench.target, settings.accept_foreign_table)
        if table.target != bench.target or table.name:
            return _covering(table, space)
    # a path out of a run's files is read, and not written to
    return completed(bench, start_table(bench, path), space, path if run is None else table_path(bench.target))


def _covering(table: LatencyTable, space: SearchSpace) -> LatencyTable:
    """The table, if its entries and what lies between them are enough. Raises InvalidSetting naming what it lacks."""
    predictor = Predictor(table)
    lacks = [unit.key for unit in units_of(space) if predictor.entry(unit.key) is None]
    if lacks:
        named = "; ".join(lacks[:NAMED_AT_MOST])
        raise InvalidSetting(
            f"the latency table {table.name or table.target.slug} lacks {len(lacks)} of {len(units_of(space))} units of space "
            f"{space.name}: {named}{', ...' if len(lacks) > NAMED_AT_MOST else ''}; choose another table or other --set"
        )
    return table


def _require(models: Sequence[CostModel], budgets: Sequence[Budget], space: SearchSpace) -> None:
    """Raise InvalidBudget for a budget on time or energy that no model knows."""
    arch = space.smallest()
    known = {name for model in models for name in model(arch, space.plan(arch))}
    for budget in budgets:
        if budget.metric.startswith(ENERGY) and budget.metric not in known:
            raise InvalidBudget(f"budget {budget.text!r} needs energy, which the table does not have; {WHERE_ENERGY_IS}")
