import math

import numpy as np
import pytest
from search_toy import TOY, toy_cost, toy_problem

from nas.budget import Budget, Cost, Metric
from nas.errors import InfeasibleBudget, InvalidSetting
from nas.search.problem import SearchProblem
from nas.trial import Trial


def problem_with(*texts: str, objectives: tuple[str, ...] = ()) -> SearchProblem:
    return SearchProblem(TOY, toy_cost, tuple(map(Budget.parse, texts)), 0, objectives)


def test_excess_is_zero_within_the_budget_and_relative_above():
    macs = toy_cost(TOY.largest()).values()["macs"]
    assert problem_with(f"{macs:.0f}FLOPs").excess(TOY.largest()) == 0
    assert problem_with(f"{macs / 2}FLOPs").excess(TOY.largest()) == pytest.approx(1.0)
    assert problem_with("1ms").excess(TOY.largest()) == math.inf
    assert problem_with().excess(TOY.largest()) == 0


def test_excess_is_positive_for_the_slightest_violation():
    limit = 3.0
    problem = SearchProblem(TOY, toy_cost, (Budget("3ms", "latency_ms", limit),))
    assert problem.excess_of(Cost({"latency_ms": Metric(math.nextafter(limit, 4), "ms", "test")})) > 0


def test_objective_values_are_errors_then_costs():
    arch = TOY.largest()
    cost = toy_cost(arch)
    trial = Trial(0, arch, "complete", cost, {"val_accuracy": 0.75})
    values = problem_with(objectives=("params", "macs")).objective_values(trial)
    assert values.tolist() == [0.25, cost.value("params"), cost.value("macs")]
    assert np.array_equal(problem_with().objective_values(trial), [0.25])


def test_unknown_objectives_are_refused():
    with pytest.raises(InvalidSetting, match="objective 'latency_ms' is not a cost that is taken; use some of .*macs"):
        problem_with(objectives=("latency_ms",)).check()


def test_feasible_problems_pass():
    problem_with().check()
    toy_problem(0.01).check()


def test_infeasible_budgets_name_the_nearest_feasible_ones():
    costs = toy_cost(TOY.smallest()).values()
    with pytest.raises(InfeasibleBudget) as caught:
        problem_with("10FLOPs", "20params", "1GBpeak").check()
    message = str(caught.value)
    assert "keeps 10FLOPs and 20params and 1GBpeak; the smallest network has macs" in message
    nearest = message.split("the nearest feasible budget is ")[1].split()
    assert [Budget.parse(t).metric for t in nearest] == ["macs", "params"]
    problem_with(*nearest).check()
    assert all(Budget.parse(t).limit < 1.02 * costs[Budget.parse(t).metric] for t in nearest)


def test_a_budget_on_an_unknown_cost_is_infeasible_without_a_nearest_one():
    with pytest.raises(InfeasibleBudget, match="latency_ms is not known, so 5ms is not shown to be kept$"):
        problem_with("5ms").check()
