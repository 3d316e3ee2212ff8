from collections import Counter

import numpy as np
import pytest
from search_toy import TOY, WideSpace, toy_problem, within

from nas.budget import Budget
from nas.errors import InfeasibleBudget
from nas.search.drawing import UNIFORM_DRAWS, draw_feasible, draw_unseen, reachable
from nas.search.problem import SearchProblem
from nas.seeding import numpy_rng

WIDE = WideSpace()


def wide_problem(share: float) -> SearchProblem:
    """The limit lies `share` of the way from the smallest cost to the largest."""
    smallest, largest = (WIDE.cost(a).values()["macs"] for a in (WIDE.smallest(), WIDE.largest()))
    return SearchProblem(WIDE, WIDE.cost, (Budget("limit", "macs", smallest + share * (largest - smallest)),))


def draws(problem: SearchProblem, n: int) -> list:
    return [draw_feasible(problem, numpy_rng(0, "draw", i)) for i in range(n)]


def test_without_a_budget_draws_are_those_of_the_space():
    problem = toy_problem(None)
    assert draws(problem, 50) == [TOY.sample(numpy_rng(0, "draw", i)) for i in range(50)]


def test_draws_that_keep_the_budget_are_kept():
    problem = wide_problem(0.6)
    rngs = [numpy_rng(0, "draw", i) for i in range(50)]
    first = [WIDE.sample(rng) for rng in rngs]
    for arch, drawn in zip(first, draws(problem, 50), strict=True):
        assert drawn == arch or problem.excess(arch) > 0


@pytest.mark.parametrize("share", [0.3, 0.1, 0.04])
def test_rare_networks_are_found_and_spread_over_the_range(share):
    problem = wide_problem(share)
    archs = draws(problem, 200)
    assert all(problem.excess(a) == 0 for a in archs)
    smallest, limit = problem.smallest_cost.values()["macs"], problem.budgets[0].limit
    place = [(problem.cost(a).values()["macs"] - smallest) / (limit - smallest) for a in archs]
    assert np.mean(np.array(place) > 0.5) > 0.5
    if share <= 0.1:  # so rare that nearly all draws walk down
        assert min(place) < 0.25 and max(place) > 0.9


def test_walks_reach_all_that_keeps_a_tight_budget():
    problem = toy_problem(0.05)
    assert set(draws(problem, 600)) == within(problem)


def test_no_draw_below_the_smallest_network():
    problem = SearchProblem(TOY, toy_problem().cost, (Budget.parse("1FLOPs"),))
    with pytest.raises(InfeasibleBudget):
        draw_feasible(problem, numpy_rng(0))


def test_drawing_is_bounded():
    looked_at = Counter()

    def cost(arch):
        looked_at[arch] += 1
        return WIDE.cost(arch)

    problem = SearchProblem(WIDE, cost, (Budget("limit", "macs", WIDE.cost(WIDE.smallest()).values()["macs"]),))
    assert draw_feasible(problem, numpy_rng(0)) == WIDE.smallest()
    steps = sum(len(c.options) for c in WIDE.choices)
    assert looked_at.total() <= UNIFORM_DRAWS + steps + 1


def test_reachable_networks_are_all_within_the_budget():
    for share in (0.05, 0.3, None):
        problem = toy_problem(share)
        found = reachable(problem)
        assert found[0] == TOY.smallest() and len(found) == len(set(found))
        assert set(found) == within(problem)


def test_reachable_networks_are_bounded():
    looked_at = Counter()

    def cost(arch):
        looked_at[arch] += 1
        return WIDE.cost(arch)

    found = reachable(SearchProblem(WIDE, cost), limit=100)
    assert 100 <= len(found) <= looked_at.total() + 1 < 200


def test_unseen_networks_are_drawn_to_the_last():
    problem = toy_problem(0.05)
    networks = within(problem)
    for last in networks:
        assert draw_unseen(problem, numpy_rng(0), networks - {last}) == last
    assert draw_unseen(problem, numpy_rng(0), networks) is None
