"""Search strategies by name. A new one is one file and one line in SEARCHERS."""

from collections.abc import Callable
from pathlib import Path

from nas.search.evolution import EvolutionSearcher
from nas.search.local_search import LocalSearchSearcher
from nas.search.problem import SearchProblem
from nas.search.random import RandomSearcher
from nas.search.regularized_evolution import RegularizedEvolutionSearcher
from nas.search.searcher import Searcher


def _random(problem: SearchProblem, study_path: Path | None) -> Searcher:
    return RandomSearcher(problem)


def _evolution(problem: SearchProblem, study_path: Path | None) -> Searcher:
    return EvolutionSearcher(problem)


def _regularized_evolution(problem: SearchProblem, study_path: Path | None) -> Searcher:
    return RegularizedEvolutionSearcher(problem)


def _local_search(problem: SearchProblem, study_path: Path | None) -> Searcher:
    return LocalSearchSearcher(problem)


def _optuna_tpe(problem: SearchProblem, study_path: Path | None) -> Searcher:
    from nas.search.optuna_searcher import tpe_searcher  # here: Optuna takes half a second to import

    return tpe_searcher(problem, study_path)


def _optuna_nsga2(problem: SearchProblem, study_path: Path | None) -> Searcher:
    from nas.search.optuna_searcher import nsga2_searcher  # here: Optuna takes half a second to import

    return nsga2_searcher(problem, study_path)


# name -> factory(problem, study_path); `study_path` is the journal file of searchers that keep a study, None for memory
SEARCHERS: dict[str, Callable[[SearchProblem, Path | None], Searcher]] = {
    "random": _random,
    "evolution": _evolution,
    "regularized-evolution": _regularized_evolution,
    "local-search": _local_search,
    "optuna-tpe": _optuna_tpe,
    "optuna-nsga2": _optuna_nsga2,
}
