"""Optuna's TPE and NSGA-II as searchers. The one file that imports Optuna.

Optuna's storage does not hold the state of a sampler, so every ask gets a fresh sampler with its own seed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast, final

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.architecture import Architecture, Option
from nas.search.drawing import draw_unseen
from nas.search.evolution import EvolutionSettings
from nas.search.problem import VAL_ACCURACY, SearchProblem
from nas.search.searcher import SequentialSearcher
from nas.trial import Trial

STUDY_NAME = "search"
CONSTRAINT = "budget"
ATTEMPTS = 32
TPE_STARTUP = 10
WORST_ERROR = 1.0

MakeSampler = Callable[[int], optuna.samplers.BaseSampler]


def tpe_searcher(problem: SearchProblem, study_path: Path | None) -> OptunaSearcher:
    """TPE (Bergstra et al. 2011; multi-objective: Ozaki et al. 2020), joint within each group of conditional decisions."""
    return OptunaSearcher(problem, _tpe_sampler, TPE_STARTUP, study_path)


def nsga2_searcher(problem: SearchProblem, study_path: Path | None) -> OptunaSearcher:
    """Optuna's NSGA-II by generations. Decisions that do not exist in every network are drawn anew, not inherited."""
    return OptunaSearcher(problem, _nsga2_sampler, EvolutionSettings().population_size, study_path)


@final
class OptunaSearcher(SequentialSearcher):
    """Asks an Optuna study for the active decisions of one network after the other (define by run).

    The first `startup` networks are drawn within the budget (drawing.py) where Optuna would draw from the whole space.
    A proposal over the budget is told to Optuna as a violated constraint, one that was evaluated with its known values, and
    Optuna is asked again, at most ATTEMPTS times; then a network is drawn and enqueued.

    `study_path` gets an Optuna journal with the told trials, in order, under the study name STUDY_NAME. It is derived from
    the trials and starts empty with every searcher, so that a replay writes it again.
    """

    def __init__(self, problem: SearchProblem, make_sampler: MakeSampler, startup: int, study_path: Path | None) -> None:
        super().__init__(problem)
        self._make_sampler, self._startup = make_sampler, startup
        self._pending: dict[Architecture, optuna.Trial] = {}
        self._values: dict[Architecture, list[float]] = {}
        self._study = _new_study(problem.objectives, None)
        self._journal = _new_study(problem.objectives, study_path) if study_path else None

    def propose(self, rng: np.random.Generator) -> Architecture | None:
        """Ask Optuna for a network that is new and keeps the budget; draw one if it finds none."""
        self._study.sampler = self._make_sampler(int(rng.integers(2**32)))
        if len(self.seen) >= self._startup:
            for _ in range(ATTEMPTS):
                trial = self._study.ask()
                arch = self._suggest(trial)
                if not self._refused(trial, arch):
                    self._pending[arch] = trial
                    return arch
        drawn = draw_unseen(self.problem, rng, self.seen)
        if drawn is not None:
            self._pending[drawn] = self._enqueue(drawn)
        return drawn

    def follow(self, trial: Trial) -> None:
        """See Searcher.follow: the study has to be asked again, for it learns from what it was refused."""
        self.ask(1)
        self.tell([trial])

    def learn(self, trials: Sequence[Trial]) -> None:
        """Tell Optuna, and append to the journal; trials that it did not propose are enqueued first."""
        for trial in trials:
            asked = self._pending.pop(trial.architecture, None) or self._enqueue(trial.architecture)
            if trial.state == "failed":
                self._study.tell(asked, state=TrialState.FAIL)
            elif trial.state == "infeasible":
                self._tell_infeasible(asked, trial.architecture)
            else:
                self._values[trial.architecture] = self.problem.objective_values(trial).tolist()
                self._tell_values(asked, trial.architecture)
            if self._journal is not None:
                self._journal.add_trial(self._study.get_trials(deepcopy=False)[asked.number])

    def _suggest(self, trial: optuna.Trial) -> Architecture:
        values: dict[str, Option] = {}
        for choice in self.problem.space.choices:
            if choice.is_active(values):
                values[choice.name] = cast(Option, trial.suggest_categorical(choice.name, choice.options))
        return self.problem.space.architecture(values)

    def _refused(self, trial: optuna.Trial, arch: Architecture) -> bool:
        """Tell Optuna what is known of a proposal that cannot be used."""
        if self.problem.excess(arch) > 0:
            self._tell_infeasible(trial, arch)
        elif arch in self._values:
            self._tell_values(trial, arch)
        elif arch in self.seen:  # not told yet, or it could not be evaluated; samplers pass over failed trials
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            return False
        return True

    def _tell_values(self, trial: optuna.Trial, arch: Architecture) -> None:
        self._constrain(trial, arch)
        self._study.tell(trial, self._values[arch])

    def _tell_infeasible(self, trial: optuna.Trial, arch: Architecture) -> None:
        self._constrain(trial, arch)
        self._study.tell(trial, [WORST_ERROR, *self.problem.cost_values(self.problem.cost(arch))])

    def _constrain(self, trial: optuna.Trial, arch: Architecture) -> None:
        if self.problem.budgets:
            trial.set_constraint(CONSTRAINT, self.problem.excess(arch))

    def _enqueue(self, arch: Architecture) -> optuna.Trial:
        self._study.enqueue_trial(dict(arch.choices))
        trial = self._study.ask()
        suggested = self._suggest(trial)
        assert suggested == arch, "an enqueued trial must be the next one"
        return trial


@final
class RecordedStudy:
    """A study in memory of trials that a run recorded, whatever proposed them, with the values that a journal has.

    `options` are those of each choice, a range for numbers in between; a choice that it does not have becomes an attribute of
    the trial, as do all costs and scores. A trial that was not evaluated, or lacks an objective, is a failed one.
    """

    def __init__(self, name: str, objectives: Sequence[str], options: Mapping[str, Sequence[Option]]) -> None:
        self._objectives, self._study = objectives, _new_study(objectives, None, name)
        self._distributions = {name: _distribution(values) for name, values in options.items()}

    @property
    def storage(self) -> optuna.storages.BaseStorage:
        """Where Optuna's tools find the study."""
        return self._study._storage

    def add(self, trial: Trial) -> None:
        """Add the next trial."""
        choices, known = trial.architecture.choices, {**trial.cost.values(), **trial.scores}
        params = {name: choices[name] for name in self._distributions if name in choices}
        others = {name: value for name, value in choices.items() if name not in params}
        values = [1 - known.get(VAL_ACCURACY, math.nan), *(known.get(name, math.nan) for name in self._objectives)]
        complete = trial.state == "complete" and all(map(math.isfinite, values))
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if complete else TrialState.FAIL,
                values=values if complete else None,
                params=params,
                distributions={name: self._distributions[name] for name in params},
                user_attrs={"key": trial.architecture.key, "state": trial.state, "error": trial.error, **known, **others},
            )
        )


def _distribution(options: Sequence[Option]) -> optuna.distributions.BaseDistribution:
    if isinstance(options, range):
        return optuna.distributions.IntDistribution(options.start, options.stop - 1)
    return optuna.distributions.CategoricalDistribution(options)


def _new_study(objectives: Sequence[str], path: Path | None, name: str = STUDY_NAME) -> optuna.Study:
    """Create a study in memory or in an empty journal; a lock that a killed process left goes with the old journal."""
    storage = None
    if path is not None:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".lock").unlink(missing_ok=True)
        storage = JournalStorage(JournalFileBackend(str(path)))
    names = ["val_error", *objectives]
    with _quiet():
        study = optuna.create_study(
            storage=storage,
            sampler=optuna.samplers.RandomSampler(seed=0),
            study_name=name,
            directions=["minimize"] * len(names),
        )
        study.set_metric_names(names)
    return study


def _tpe_sampler(seed: int) -> optuna.samplers.BaseSampler:
    with _quiet():
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=TPE_STARTUP, multivariate=True, group=True)


def _nsga2_sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=EvolutionSettings().population_size)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the line about a new study, and the warnings that `group` and set_metric_names are experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
