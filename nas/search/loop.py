"""The loop of a search: ask -> cost -> budget -> evaluate -> record -> tell, and its replay."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from nas.architecture import Architecture
from nas.budget import check
from nas.errors import CorruptRun, InvalidSetting, NasError
from nas.search.problem import VAL_ACCURACY, SearchProblem
from nas.search.searcher import Searcher
from nas.search.select import complete_trials
from nas.trial import Trial

ASKS_PER_TRIAL = 10
# trials at either end of a replay that are proposed again: all of them would take as long as the search took to propose them
CHECKED = 20
logger = logging.getLogger(__name__)

Evaluate = Callable[[Architecture], Mapping[str, float]]


@dataclass(frozen=True)
class SearchSettings:
    """Number of complete trials that are wanted, and of asks that they may take (10 a trial where None).

    Raises InvalidSetting if one is not positive.
    """

    trials: int
    max_asks: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("max_asks", self.asks)):
            if value < 1:
                raise InvalidSetting(f"{name} is {value}; a search needs at least 1")

    @property
    def asks(self) -> int:
        """Bound on the asks, replayed ones included."""
        return ASKS_PER_TRIAL * self.trials if self.max_asks is None else self.max_asks


def run_search(
    problem: SearchProblem,
    searcher: Searcher,
    evaluate: Evaluate,
    settings: SearchSettings,
    on_trial: Callable[[Trial], None],
    done: Iterable[Trial] = (),
) -> list[Trial]:
    """Run a search to its end and return all its trials.

    `on_trial` records a trial before the searcher learns of it. `done` are the recorded trials of an interrupted search;
    they are replayed into `searcher`, which must be fresh, and not recorded again. A network over the budget is recorded as
    infeasible and not evaluated; an evaluation that raises a NasError or gives a score that is not finite is recorded as
    failed. The search ends early, and logs why, if the searcher has no more proposals or the asks are used up.

    Raises InfeasibleBudget if no network that keeps the budget was found, CorruptRun if `done` is not what the searcher
    proposes, InvalidSetting if an objective is not a known cost, NasError if no evaluation succeeded.
    """
    problem.check()
    trials = _replay(searcher, done)
    wanted = settings.trials - sum(t.state == "complete" for t in trials)
    for _ in range(settings.asks - len(trials)):
        if wanted <= 0:
            break
        proposals = searcher.ask(1)
        if not proposals:
            logger.info("search ends after %d trials: there is no other network that keeps the budget", len(trials))
            break
        trial = _judge(problem, evaluate, len(trials), proposals[0])
        on_trial(trial)
        searcher.tell([trial])
        trials.append(trial)
        wanted -= trial.state == "complete"
    else:
        if wanted > 0:
            logger.warning("search ends after %d asks, %d complete trials short of %d", settings.asks, wanted, settings.trials)
    complete_trials(trials, problem)  # raises if there are none
    return trials


def _replay(searcher: Searcher, done: Iterable[Trial]) -> list[Trial]:
    """Take in recorded trials; the first and the last ones are proposed again, to see that they are of this search."""
    recorded, trials = list(done), list[Trial]()
    for trial in recorded:
        place = len(trials)
        if trial.number == place and CHECKED <= place < len(recorded) - CHECKED:
            searcher.follow(trial)
            trials.append(trial)
            continue
        proposals = searcher.ask(1)
        if trial.number != place or proposals != [trial.architecture]:
            proposed = proposals[0].key if proposals else "nothing"
            raise CorruptRun(
                f"trial {trial.number} of the run is network {trial.architecture.key}, but at place {place} the searcher "
                f"proposes {proposed}; the run was made with other settings or changed: restore it or start a new one"
            )
        searcher.tell([trial])
        trials.append(trial)
    return trials


def _judge(problem: SearchProblem, evaluate: Evaluate, number: int, arch: Architecture) -> Trial:
    """Cost, check and evaluate one network."""
    start = time.perf_counter()
    cost = problem.cost(arch)
    scores: Mapping[str, float] = {}
    error = "; ".join(v.text for v in check(problem.budgets, cost))
    if error:
        return Trial(number, arch, "infeasible", cost, seconds=time.perf_counter() - start, error=error)
    try:
        scores = dict(evaluate(arch))
        error = _defect(scores)
    except NasError as failure:
        error = str(failure) or type(failure).__name__
    seconds = time.perf_counter() - start
    if error:
        return Trial(number, arch, "failed", cost, seconds=seconds, error=error)
    return Trial(number, arch, "complete", cost, scores, seconds)


def _defect(scores: Mapping[str, float]) -> str:
    """Say what is wrong with the scores of an evaluation; empty if nothing is."""
    if VAL_ACCURACY not in scores:
        return f"the evaluation gave no {VAL_ACCURACY}, only {', '.join(sorted(scores)) or 'nothing'}"
    bad = [f"{name} is {value}" for name, value in scores.items() if not math.isfinite(value)]
    return ", ".join(bad)
