"""Which cell of NAS-Bench-201 (Dong and Yang 2020, CIFAR-10) each searcher finds with 150 and with 300 evaluations.

A search sees the validation accuracy after 12 epochs (`val`); what counts is the test accuracy after 200 epochs (`test`) of the
cell that it selects. The two disagree at the top, so that a better `val` may come with a worse `test`.

Run `python -m benchmarks.searchers_nasbench201 --data ../shared/data/tables`.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import ClassVar

from torch import nn

from nas.architecture import Architecture, Choice, SearchSpace
from nas.budget import Budget, Cost, Metric
from nas.evaluation.tabular import TabularEvaluator
from nas.plan import PlanBlock
from nas.search import SEARCHERS
from nas.search.loop import SearchSettings, run_search
from nas.search.problem import SearchProblem
from nas.search.select import best
from nas.trial import Trial

TABLE = "nasbench201_cifar10.csv"
OPERATORS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
EDGES = ("0-1", "0-2", "1-2", "0-3", "1-3", "2-3")
EVALUATIONS = (150, 300)
# simulated from the same table without a budget, 50 seeds: mean test accuracy after 150 and 300 evaluations
BASELINES = {
    "random search": (93.87, 93.94),
    "regularized evolution": (94.18, 94.28),
    "local search": (94.14, 94.32),
}


@dataclass(frozen=True)
class CellSpace(SearchSpace):
    """The cells of NAS-Bench-201: one of five operators on each of six edges. There is nothing to build or to train."""

    name: ClassVar[str] = "nasbench201"
    version: ClassVar[int] = 1

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """One decision an edge, operators ordered by cost."""
        return tuple(Choice(edge, OPERATORS) for edge in EDGES)

    @property
    def blocks(self) -> tuple[PlanBlock, ...]:
        """No plan: costs come from the table."""
        return ()

    def network(self, arch: Architecture) -> nn.Module:
        """Not available: results come from the table."""
        raise NotImplementedError("cells of the table are not built")


@dataclass(frozen=True)
class Table:
    """Costs and scores by key; scores are fractions in 0..1."""

    costs: dict[str, Cost]
    scores: dict[str, dict[str, float]]
    test: dict[str, float]

    def cost(self, arch: Architecture) -> Cost:
        """Look the cost of a cell up."""
        return self.costs[arch.key]


@dataclass(frozen=True)
class Setting:
    """One line of the comparison."""

    searcher: str
    budget: str
    objectives: tuple[str, ...]
    seeds: int


def read_table(space: CellSpace, folder: Path) -> Table:
    """Read the 15,625 cells."""
    table = Table({}, {}, {})
    with (folder / TABLE).open(newline="") as file:
        for row in csv.DictReader(file):
            operators = re.findall(r"(\w+)~\d", row["arch_str"])
            key = space.architecture(dict(zip(EDGES, operators, strict=True))).key
            table.costs[key] = Cost(
                {
                    "macs": Metric(float(row["flops_M"]) * 1e6, "multiply-adds", "table"),
                    "params": Metric(float(row["params_M"]) * 1e6, "parameters", "table"),
                }
            )
            table.scores[key] = {"val_accuracy": float(row["val_acc_ep12"]) / 100}
            table.test[key] = float(row["test_acc_ep200"])
    return table


def selected(space: CellSpace, table: Table, setting: Setting, seed: int) -> list[float]:
    """Search once: validation and test accuracy, in percent, of the cell selected after each of EVALUATIONS."""
    budgets = (Budget.parse(setting.budget),) if setting.budget else ()
    problem = SearchProblem(space, table.cost, budgets, seed, setting.objectives)
    searcher = SEARCHERS[setting.searcher](problem, None)
    trials = run_search(problem, searcher, TabularEvaluator(table.scores), SearchSettings(max(EVALUATIONS)), _ignore)
    cells = [best(trials[:n], problem) for n in EVALUATIONS]
    return [a for cell in cells for a in (100 * cell.scores["val_accuracy"], table.test[cell.architecture.key])]


def settings(seeds: int, optuna_seeds: int, budget: str) -> Iterator[Setting]:
    """All comparisons: without a budget by accuracy alone, with a budget by accuracy alone and with the cost as objective."""
    for text, objectives in (("", ()), (budget, ()), (budget, ("macs",))):
        for name in SEARCHERS:
            yield Setting(name, text, objectives, optuna_seeds if name.startswith("optuna") else seeds)


def run(space: CellSpace, table: Table, setting: Setting) -> dict[str, object]:
    """Run one line of the comparison and print it."""
    start = time.perf_counter()
    columns = list(zip(*(selected(space, table, setting, seed) for seed in range(setting.seeds)), strict=True))
    seconds = (time.perf_counter() - start) / setting.seeds
    means, spreads = [mean(c) for c in columns], [stdev(c) for c in columns]
    pairs = zip(means[::2], means[1::2], spreads[1::2], strict=True)
    numbers = "  ".join(f"{val:6.2f} {test:6.2f} +- {spread:4.2f}" for val, test, spread in pairs)
    objectives = "+".join(("error", *setting.objectives))
    print(f"{setting.searcher:23} {setting.budget or 'none':>8} {objectives:10} {setting.seeds:5}  {numbers}  {seconds:5.2f}")
    names = [f"{kind}_{n}" for n in EVALUATIONS for kind in ("val", "test")]
    results = {name: {"mean": m, "std": s} for name, m, s in zip(names, means, spreads, strict=True)}
    return {**vars(setting), **results, "seconds": seconds}


def _ignore(trial: Trial) -> None:
    """Record nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {TABLE}")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--optuna-seeds", type=int, default=10, help="fewer, because Optuna's searchers are slow")
    parser.add_argument("--budget", default="60MFLOPs")
    arguments = parser.parse_args()
    space = CellSpace()
    table = read_table(space, arguments.data)
    limit = Budget.parse(arguments.budget)
    within = [key for key, cost in table.costs.items() if limit.check(cost) is None]
    print("Accuracy (%) of the selected cell: validation at 12 epochs, test at 200 epochs +- deviation over the seeds")
    print(f"best: {best_of(table, list(table.costs))}; within {limit.text} (multiply-adds): {best_of(table, within)}")
    after = "  ".join(f"{f'val, test after {n}':>21}" for n in EVALUATIONS)
    print(f"{'searcher':23} {'budget':>8} {'objectives':10} {'seeds':>5}  {after}  s/run")
    for name, accuracies in BASELINES.items():
        numbers = "  ".join(f"       {a:6.2f}        " for a in accuracies)
        print(f"{name + ' *':23} {'none':>8} {'error':10} {50:5}  {numbers}")
    results = [run(space, table, s) for s in settings(arguments.seeds, arguments.optuna_seeds, arguments.budget)]
    print("* simulated from the same table. Optuna's searchers have fewer seeds, because they are slow.")
    print(json.dumps({"benchmark": "searchers_nasbench201", "baselines": BASELINES, "results": results}))


def best_of(table: Table, keys: list[str]) -> str:
    """The most that can be found among some cells."""
    val = max(table.scores[k]["val_accuracy"] for k in keys)
    return f"val {100 * val:.2f}, test {max(table.test[k] for k in keys):.2f} of {len(keys)} cells"


if __name__ == "__main__":
    main()
