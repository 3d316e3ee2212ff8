import pytest
from search_toy import TOY, toy_cost

from nas.budget import Budget, Cost, Metric
from nas.errors import InfeasibleBudget, NasError
from nas.search.problem import SearchProblem
from nas.search.select import best, complete_trials, front
from nas.trial import Trial

ARCHS = [TOY.smallest(), *TOY.neighbours(TOY.largest())]


def trial(number: int, accuracy: float, macs: float, params: float = 1.0) -> Trial:
    cost = Cost({"macs": Metric(macs, "", ""), "params": Metric(params, "", "")})
    return Trial(number, ARCHS[number], "complete", cost, {"val_accuracy": accuracy})


def problem(limit: float = 100, objectives: tuple[str, ...] = ("macs",)) -> SearchProblem:
    return SearchProblem(TOY, toy_cost, (Budget("100FLOPs", "macs", limit),), 0, objectives)


TRIALS = [
    trial(0, 0.70, 50),
    trial(1, 0.90, 150),  # over the budget, though it was evaluated under another one
    trial(2, 0.80, 90),
    Trial(3, ARCHS[3], "infeasible", toy_cost(ARCHS[3])),
    Trial(4, ARCHS[4], "failed", trial(4, 0, 10).cost, error="nan"),
    trial(5, 0.60, 60),
    trial(6, 0.65, 20),
]


def test_complete_trials_keep_the_budget():
    assert [t.number for t in complete_trials(TRIALS, problem())] == [0, 2, 5, 6]


def test_best_is_the_most_accurate_within_the_budget():
    assert best(TRIALS, problem()).number == 2
    assert best(TRIALS, problem(limit=200)).number == 1
    assert best(TRIALS, problem(objectives=())).number == 2


def test_of_equal_accuracy_the_cheapest_is_best_then_the_earliest():
    equal = [trial(0, 0.8, 50, params=1), trial(1, 0.8, 30, params=9), trial(2, 0.8, 30, params=9)]
    assert best(equal, problem()).number == 1
    assert best(equal, problem(objectives=("params", "macs"))).number == 0
    assert best(equal, SearchProblem(TOY, toy_cost)).number == 1


def test_front_is_ordered_by_the_last_objective():
    assert [t.number for t in front(TRIALS, problem())] == [6, 0, 2]
    assert [t.number for t in front(TRIALS, problem(limit=200))] == [6, 0, 2, 1]


def test_front_of_one_objective_is_its_best():
    assert [t.number for t in front(TRIALS, problem(objectives=()))] == [2]


def test_nothing_feasible_is_infeasible():
    with pytest.raises(InfeasibleBudget, match="none of 1 networks keeps 100FLOPs; the smallest network has"):
        best(TRIALS[1:2], problem())


def test_nothing_evaluated_names_the_last_failure():
    with pytest.raises(NasError, match="none of 1 networks could be evaluated; the last one: nan") as caught:
        front(TRIALS[3:5], problem(limit=1e9))
    assert not isinstance(caught.value, InfeasibleBudget)
