"""Searchers on NAS-Bench-201 (Dong and Yang 2020), CIFAR-10: which cell does each find with 150 and 300 evaluations?

A search sees the validation accuracy after 12 epochs; what counts is the test accuracy after 200 epochs of the cell that it
selects. Run `python -m benchmarks.searchers_nasbench201 --data ../shared/data/tables`.
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
    """Search once, and return the test accuracy of the cell selected after each of EVALUATIONS."""
    budgets = (Budget.parse(setting.budget),) if setting.budget else ()
    problem = SearchProblem(space, table.cost, budgets, seed, setting.objectives)
    searcher = SEARCHERS[setting.searcher](problem, None)
    settings = SearchSettings(max(EVALUATIONS))
    trials = run_search(problem, searcher, TabularEvaluator(table.scores), settings, _ignore)
    return [table.test[best(trials[:n], problem).architecture.key] for n in EVALUATIONS]


def settings(seeds: int, optuna_seeds: int, budget: str) -> Iterator[Setting]:
    """All comparisons: without a budget by accuracy alone, with a budget by accuracy alone and with the cost as objective."""
    for text, objectives in (("", ()), (budget, ()), (budget, ("macs",))):
        for name in SEARCHERS:
            yield Setting(name, text, objectives, optuna_seeds if name.startswith("optuna") else seeds)


def run(space: CellSpace, table: Table, setting: Setting) -> dict[str, object]:
    """Run one line of the comparison and print it."""
    start = time.perf_counter()
    results = [selected(space, table, setting, seed) for seed in range(setting.seeds)]
    seconds = (time.perf_counter() - start) / setting.seeds
    columns = list(zip(*results, strict=True))
    numbers = "  ".join(f"{mean(c):6.2f} +- {stdev(c):4.2f}" for c in columns)
    objectives = "error" + "".join(f"+{o}" for o in setting.objectives)
    print(f"{setting.searcher:22} {setting.budget or 'none':>10} {objectives:11} {setting.seeds:5}  {numbers}  {seconds:6.2f}")
    return {**vars(setting), "mean": [mean(c) for c in columns], "std": [stdev(c) for c in columns], "seconds": seconds}


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
    within = [accuracy for key, accuracy in table.test.items() if limit.check(table.costs[key]) is None]
    print(
        f"NAS-Bench-201, CIFAR-10: test accuracy (%) at 200 epochs of the selected cell; best {max(table.test.values()):.2f},"
    )
    print(f"best within {arguments.budget} (multiply-adds) {max(within):.2f}, {len(within)} of {len(table.test)} cells keep it")
    after = "  ".join(f"{f'after {n}':>14}" for n in EVALUATIONS)
    print(f"{'searcher':22} {'budget':>10} {'objectives':11} {'seeds':>5}  {after}  s/run")
    for name, accuracies in BASELINES.items():
        numbers = "  ".join(f"{a:6.2f}        " for a in accuracies)
        print(f"{name + ' *':22} {'none':>10} {'error':11} {50:5}  {numbers}")
    results = [run(space, table, s) for s in settings(arguments.seeds, arguments.optuna_seeds, arguments.budget)]
    print("* simulated from the same table")
    print(json.dumps({"benchmark": "searchers_nasbench201", "baselines": BASELINES, "results": results}))


if __name__ == "__main__":
    main()
