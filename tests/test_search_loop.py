import logging
import math
from collections.abc import Sequence

import pytest
from search_toy import TOY, toy_cost, toy_problem, toy_scores, within

from nas.architecture import Architecture
from nas.budget import Budget
from nas.errors import CorruptRun, InfeasibleBudget, InvalidSetting, NasError, TrainingDiverged
from nas.search.loop import SearchSettings, run_search
from nas.search.problem import SearchProblem
from nas.search.random import RandomSearcher
from nas.trial import Trial

GOOD = {"val_accuracy": 0.5}


class Scripted:
    """A searcher that proposes given networks and notes what it is told."""

    def __init__(self, archs: Sequence[Architecture]) -> None:
        self.archs, self.told, self.asks = list(archs), [], 0

    def ask(self, n: int) -> list[Architecture]:
        self.asks += 1
        return self.archs[self.asks - 1 : self.asks]

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told += trials


def ignore(trial: Trial) -> None:
    """Record nothing."""


def test_a_trial_is_recorded_before_it_is_told():
    events = []

    class Noting(Scripted):
        def ask(self, n):
            events.append("ask")
            return super().ask(n)

        def tell(self, trials):
            events.append(f"tell {trials[0].number}")

    searcher = Noting(list(within(toy_problem()))[:2])
    run_search(toy_problem(), searcher, lambda arch: GOOD, SearchSettings(2), lambda t: events.append(f"record {t.number}"))
    assert events == ["ask", "record 0", "tell 0", "ask", "record 1", "tell 1"]


def test_a_record_that_fails_is_not_told():
    def full(trial):
        raise OSError("no space left on device")

    searcher = Scripted([TOY.smallest()])
    with pytest.raises(OSError, match="no space left"):
        run_search(toy_problem(), searcher, lambda arch: GOOD, SearchSettings(1), full)
    assert searcher.told == []


def test_trials_hold_cost_scores_and_time():
    (trial,) = run_search(toy_problem(), Scripted([TOY.smallest()]), lambda arch: GOOD, SearchSettings(1), ignore)
    assert (trial.number, trial.state, trial.scores, trial.error) == (0, "complete", GOOD, "")
    assert trial.architecture == TOY.smallest() and trial.cost == toy_cost(TOY.smallest())
    assert 0 < trial.seconds < 60


def test_networks_over_the_budget_are_recorded_and_not_evaluated():
    problem = toy_problem(0.5)
    evaluated = []

    def evaluate(arch):
        evaluated.append(arch)
        return GOOD

    trials = run_search(problem, Scripted([TOY.largest(), TOY.smallest()]), evaluate, SearchSettings(1), ignore)
    assert [t.state for t in trials] == ["infeasible", "complete"]
    assert evaluated == [TOY.smallest()]
    assert trials[0].error.endswith(" > limit") and trials[0].scores == {}


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        ({"val_accuracy": math.nan}, "val_accuracy is nan"),
        ({"val_accuracy": 0.5, "loss": math.inf}, "loss is inf"),
        ({"loss": 1.0}, "the evaluation gave no val_accuracy, only loss"),
        ({}, "the evaluation gave no val_accuracy, only nothing"),
    ],
)
def test_defective_scores_fail(scores, error):
    archs = [TOY.largest(), TOY.smallest()]
    evaluate = {archs[0]: scores, archs[1]: GOOD}.__getitem__
    trials = run_search(toy_problem(), Scripted(archs), evaluate, SearchSettings(1), ignore)
    assert [(t.state, t.error, t.scores) for t in trials] == [("failed", error, {}), ("complete", "", GOOD)]


def test_errors_of_ours_fail_the_trial_and_the_search_goes_on():
    def evaluate(arch):
        if arch == TOY.largest():
            raise TrainingDiverged("the loss is nan in step 3")
        return GOOD

    trials = run_search(toy_problem(), Scripted([TOY.largest(), TOY.smallest()]), evaluate, SearchSettings(1), ignore)
    assert [(t.state, t.error) for t in trials] == [("failed", "the loss is nan in step 3"), ("complete", "")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_other_errors_end_the_search(error):
    def evaluate(arch):
        raise error

    recorded = []
    with pytest.raises(error):
        run_search(toy_problem(), Scripted([TOY.smallest()]), evaluate, SearchSettings(1), recorded.append)
    assert recorded == []


def test_an_exhausted_space_ends_the_search_and_says_so(caplog):
    problem = toy_problem(0.05)
    with caplog.at_level(logging.INFO, logger="nas.search"):
        trials = run_search(problem, RandomSearcher(problem), lambda arch: GOOD, SearchSettings(10_000), ignore)
    assert {t.architecture for t in trials} == within(problem)
    assert caplog.messages == [f"search ends after {len(trials)} trials: there is no other network that keeps the budget"]


def test_asks_are_bounded(caplog):
    archs = [TOY.smallest(), *TOY.neighbours(TOY.largest())]
    problem = SearchProblem(TOY, toy_cost, (Budget("limit", "macs", toy_cost(TOY.smallest()).value("macs")),))
    searcher = Scripted(archs)
    trials = run_search(problem, searcher, lambda arch: GOOD, SearchSettings(2, max_asks=5), ignore)
    assert searcher.asks == len(trials) == 5
    assert caplog.messages == ["search ends after 5 asks, 1 complete trials short of 2"]


def test_default_bound_is_ten_asks_a_trial():
    assert SearchSettings(7).asks == 70


@pytest.mark.parametrize("values", [(0, None), (-1, None), (1, 0)])
def test_searches_of_nothing_are_refused(values):
    with pytest.raises(InvalidSetting, match=r"is (0|-1); a search needs at least 1"):
        SearchSettings(*values)


def test_no_feasible_network_is_an_error():
    problem = toy_problem(0.5)
    with pytest.raises(InfeasibleBudget, match="none of 1 networks keeps limit"):
        run_search(problem, Scripted([TOY.largest()]), lambda arch: GOOD, SearchSettings(1), ignore)


def test_an_infeasible_budget_is_an_error_before_the_first_ask():
    problem = SearchProblem(TOY, toy_cost, (Budget.parse("1FLOPs"),))
    searcher = Scripted([TOY.smallest()])
    with pytest.raises(InfeasibleBudget, match="no network of space toy-1-"):
        run_search(problem, searcher, lambda arch: GOOD, SearchSettings(1), ignore)
    assert searcher.asks == 0


def test_no_successful_evaluation_is_an_error():
    def evaluate(arch):
        raise TrainingDiverged("the loss is nan")

    with pytest.raises(NasError, match="none of 2 networks could be evaluated; the last one: the loss is nan"):
        run_search(toy_problem(), Scripted([TOY.smallest(), TOY.largest()]), evaluate, SearchSettings(1), ignore)


# -- replay


def searched(n: int) -> tuple[SearchProblem, list[Trial]]:
    problem = toy_problem()
    return problem, run_search(problem, RandomSearcher(problem), toy_scores, SearchSettings(n), ignore)


def test_a_finished_search_is_replayed_without_evaluation():
    problem, trials = searched(5)
    assert run_search(problem, RandomSearcher(problem), pytest.fail, SearchSettings(5), pytest.fail, trials) == trials


def test_a_finished_search_goes_on_with_more_trials():
    problem, trials = searched(5)
    more = run_search(problem, RandomSearcher(problem), toy_scores, SearchSettings(9), ignore, trials)
    assert all(a.same_as(b) for a, b in zip(more, searched(9)[1], strict=True))


def test_replay_counts_towards_the_asks():
    problem, trials = searched(5)
    again = run_search(problem, RandomSearcher(problem), pytest.fail, SearchSettings(50, max_asks=len(trials)), ignore, trials)
    assert again == trials


def test_a_changed_trial_is_found():
    problem, trials = searched(5)
    changed = [*trials[:2], Trial(2, TOY.largest(), "complete", toy_cost(TOY.largest()), GOOD), *trials[3:]]
    with pytest.raises(CorruptRun, match=rf"trial 2 of the run is network {TOY.largest().key}, but at place 2 the searcher"):
        run_search(problem, RandomSearcher(problem), toy_scores, SearchSettings(5), ignore, changed)


def test_a_missing_trial_is_found():
    problem, trials = searched(5)
    with pytest.raises(CorruptRun, match="trial 3 of the run is network .* at place 2"):
        run_search(problem, RandomSearcher(problem), toy_scores, SearchSettings(5), ignore, trials[:2] + trials[3:])


def test_more_trials_than_the_space_has_are_found():
    problem = toy_problem(0.05)
    trials = run_search(problem, RandomSearcher(problem), lambda arch: GOOD, SearchSettings(10_000), ignore)
    extra = Trial(len(trials), TOY.largest(), "infeasible", toy_cost(TOY.largest()))
    with pytest.raises(CorruptRun, match="the searcher proposes nothing"):
        run_search(problem, RandomSearcher(problem), lambda arch: GOOD, SearchSettings(10_000), ignore, [*trials, extra])
