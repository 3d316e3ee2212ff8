from dataclasses import replace

import numpy as np
import pytest
from search_toy import TOY, WideSpace, judged, toy_cost, toy_problem, within

from nas.budget import Budget
from nas.search.evolution import (
    EvolutionSearcher,
    EvolutionSettings,
    Individual,
    Population,
    constrained_fronts,
    crowding_distance,
    survivors,
)
from nas.search.loop import SearchSettings, run_search
from nas.search.problem import SearchProblem
from nas.search.random import RandomSearcher
from nas.search.select import best, front
from nas.seeding import numpy_rng
from nas.trial import Trial, hypervolume

INF = np.inf
ARCHS = [TOY.smallest(), *TOY.neighbours(TOY.smallest()), *TOY.neighbours(TOY.largest())]


def individuals(points, excess=None) -> list[Individual]:
    excess = excess or [0.0] * len(points)
    return [Individual(a, np.array(p, float), e) for a, p, e in zip(ARCHS, points, excess, strict=False)]


# -- the parts of NSGA-II, by hand


def test_crowding_distance_by_hand():
    points = np.array([[0.0, 10.0], [1.0, 6.0], [3.0, 5.0], [4.0, 0.0]])
    assert crowding_distance(points).tolist() == [INF, 3 / 4 + 5 / 10, 3 / 4 + 6 / 10, INF]


def test_crowding_distance_of_three_objectives_by_hand():
    points = np.array([[0, 4, 1], [1, 2, 0], [2, 1, 2], [4, 0, 4]], float)
    second, third = INF, 3 / 4 + 2 / 4 + 3 / 4  # the second is the end of the third objective
    assert crowding_distance(points).tolist() == [INF, second, third, INF]


@pytest.mark.parametrize("n", [1, 2])
def test_ends_are_not_crowded(n):
    assert crowding_distance(np.arange(n * 2.0).reshape(n, 2)).tolist() == ([0.0] if n == 1 else [INF, INF])


def test_equal_objectives_do_not_count():
    assert crowding_distance(np.full((3, 2), 7.0)).tolist() == [0, 0, 0]
    assert crowding_distance(np.array([[0.0, 1.0], [1.0, 1.0], [4.0, 1.0]])).tolist() == [INF, 1.0, INF]


def test_crowding_distance_does_not_depend_on_order_or_scale():
    rng = numpy_rng(0)
    points = rng.random((12, 3))
    order = rng.permutation(12)
    assert np.allclose(crowding_distance(points)[order], crowding_distance(points[order] * [1, 1e6, 1e-6]))


def test_feasible_networks_beat_the_others():
    pool = individuals([[0, 0], [2, 2], [1, 3], [3, 3], [9, 9]], [0.5, 0, 0, 0, 0.2])
    assert constrained_fronts(pool) == [[1, 2], [3], [4], [0]]


def test_networks_of_one_excess_share_a_front():
    assert constrained_fronts(individuals([[0], [1], [2]], [0.1, 0.1, INF])) == [[0, 1], [2]]
    assert constrained_fronts([]) == []


def test_survivors_are_whole_fronts_then_the_least_crowded():
    points = [[0, 10], [1, 6], [3, 5], [4, 0], [5, 5]]  # four on the front, one behind
    pool = individuals(points)
    assert [m.architecture for m in survivors(pool, 3).members] == [ARCHS[0], ARCHS[3], ARCHS[2]]
    assert survivors(pool, 5).rank == (0, 0, 0, 0, 1)
    assert len(survivors(pool, 9).members) == 5
    assert survivors([], 4) == Population()


def test_one_objective_selects_by_error():
    pool = individuals([[0.4], [0.1], [0.3], [0.2]])
    assert [float(m.values[0]) for m in survivors(pool, 3).members] == [0.1, 0.2, 0.3]


def test_tournament_prefers_rank_then_distance():
    pool = individuals([[0, 10], [1, 6], [3, 5], [4, 0], [5, 5]])
    population = survivors(pool, 5)
    rng = numpy_rng(0)
    wins = [population.tournament(rng) for _ in range(4000)]
    share = [wins.count(m.architecture) / len(wins) for m in population.members]
    # order: the two ends, then distance 1.35, 1.25, then the second front; the ends tie, and the first drawn wins
    assert share == pytest.approx([8 / 25, 8 / 25, 5 / 25, 3 / 25, 1 / 25], abs=0.03)


# -- the searcher


def test_the_first_population_is_that_of_random_search():
    problem = toy_problem(0.2)
    size = EvolutionSettings().population_size
    assert EvolutionSearcher(problem).ask(size) == RandomSearcher(problem).ask(size)


def test_children_take_after_the_told_population():
    """Told that only networks of one kernel are good, evolution proposes more of them than random drawing does."""
    problem = toy_problem(None, objectives=())
    searcher = EvolutionSearcher(problem, EvolutionSettings(population_size=10))
    for i in range(40):
        (arch,) = searcher.ask(1)
        scores = {"val_accuracy": 0.9 if arch.choices["kernel0"] == 5 else 0.1}
        searcher.tell([Trial(i, arch, "complete", toy_cost(arch), scores)])
    children = searcher.ask(20)
    assert sum(a.choices["kernel0"] == 5 for a in children) >= 14


def test_failed_trials_do_not_breed():
    problem = toy_problem(None)
    searcher = EvolutionSearcher(problem, EvolutionSettings(population_size=4))
    proposals = searcher.ask(8)
    searcher.tell([Trial(i, a, "failed", toy_cost(a), error="nan") for i, a in enumerate(proposals)])
    assert len(set(searcher.ask(4)) - set(proposals)) == 4


def test_an_infeasible_trial_does_not_survive_beside_feasible_ones():
    problem = toy_problem(0.5)
    small, large = sorted(within(problem), key=lambda a: a.key)[:3], TOY.largest()
    trials = [Trial(0, large, "infeasible", toy_cost(large))]
    trials += [replace(judged(problem, i, a), state="complete", scores={"val_accuracy": 0.1}) for i, a in enumerate(small)]
    searcher = EvolutionSearcher(problem, EvolutionSettings(population_size=3))
    searcher.tell(trials)
    assert {m.architecture for m in searcher.population.members} == set(small)


@pytest.mark.parametrize("share", [None, 0.3])
def test_evolution_beats_random_search(share):
    space = WideSpace()
    smallest, largest = (space.cost(a).values()["macs"] for a in (space.smallest(), space.largest()))
    budgets = () if share is None else (Budget("limit", "macs", smallest + share * (largest - smallest)),)

    def gained(make, objectives, seed) -> tuple[float, float]:
        problem = SearchProblem(space, space.cost, budgets, seed, objectives)
        trials = run_search(problem, make(problem), space.scores, SearchSettings(120), lambda trial: None)
        points = np.array([problem.objective_values(t) for t in front(trials, problem)])
        volume = hypervolume(points, [1.0, largest][: 1 + len(objectives)])
        return best(trials, problem).scores["val_accuracy"], volume

    for objectives in ((), ("macs",)):
        evolution, baseline = (
            np.array([gained(make, objectives, seed) for seed in range(5)]) for make in (EvolutionSearcher, RandomSearcher)
        )
        assert evolution[:, 0].mean() > baseline[:, 0].mean() + 2 * baseline[:, 0].std()
        assert evolution[:, 1].mean() > baseline[:, 1].mean()
