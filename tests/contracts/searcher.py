"""What every searcher promises.

A test class inherits `SearcherContract` and gives two fixtures: `make`, problem -> fresh searcher, and `steps`, a number of
trials past the searcher's startup, so that what it learned decides.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from search_toy import TOY, judged, toy_cost, toy_problem, toy_scores, within

from nas.architecture import Architecture
from nas.budget import Budget
from nas.errors import CorruptRun, InfeasibleBudget
from nas.search import loop
from nas.search.loop import SearchSettings, run_search
from nas.search.problem import SearchProblem
from nas.search.searcher import Searcher
from nas.trial import Trial


def walk(problem: SearchProblem, searcher: Searcher, steps: int, batch: int = 1) -> list[Architecture]:
    """Ask and tell; stops when nothing is proposed."""
    found: list[Architecture] = []
    for _ in range(steps):
        proposals = searcher.ask(batch)
        if not proposals:
            break
        searcher.tell([judged(problem, len(found) + i, a) for i, a in enumerate(proposals)])
        found += proposals
    return found


def same(trials: list[Trial], others: list[Trial]) -> bool:
    return len(trials) == len(others) and all(a.same_as(b) for a, b in zip(trials, others, strict=True))


def ignore(trial: Trial) -> None:
    """Record nothing."""


class SearcherContract:
    """The tests; proposals, budget, determinism, replay, exhaustion."""

    @pytest.mark.parametrize("objectives", [(), ("macs",), ("macs", "params")])
    def test_proposals_are_valid_and_never_repeat(self, make, steps, objectives):
        problem = toy_problem(objectives=objectives)
        found = walk(problem, make(problem), 2 * steps)
        assert len(found) == len(set(found)) == 2 * steps
        assert all(TOY.architecture(a.choices) == a for a in found)

    @pytest.mark.parametrize("share", [0.1, 0.5])
    def test_proposals_keep_the_budget(self, make, steps, share):
        problem = toy_problem(share)
        assert set(walk(problem, make(problem), steps)) <= within(problem)

    def test_all_budgets_hold_at_once(self, make):
        costs = toy_cost(TOY.smallest()).values()
        problem = SearchProblem(TOY, toy_cost, tuple(Budget(n, n, 2 * costs[n]) for n in ("macs", "params")), 0, ("macs",))
        found = walk(problem, make(problem), 12)
        assert found and set(found) <= within(problem)

    def test_no_proposal_below_the_smallest_network(self, make):
        smallest = toy_cost(TOY.smallest()).values()["macs"]
        problem = SearchProblem(TOY, toy_cost, (Budget.parse(f"{smallest - 1:.0f}FLOPs"),), 0, ("macs",))
        with pytest.raises(InfeasibleBudget, match="the nearest feasible budget is "):
            make(problem).ask(1)

    def test_the_smallest_network_alone(self, make):
        smallest = toy_cost(TOY.smallest()).values()["macs"]
        problem = SearchProblem(TOY, toy_cost, (Budget.parse(f"{smallest:.0f}FLOPs"),), 0, ("macs",))
        assert walk(problem, make(problem), 2) == [TOY.smallest()]

    def test_a_small_space_is_exhausted(self, make):
        problem = toy_problem(0.15)
        searcher, networks = make(problem), within(problem)
        assert len(networks) > 24
        assert set(walk(problem, searcher, len(networks))) == networks
        assert searcher.ask(1) == searcher.ask(3) == []

    def test_a_batch_may_end_short(self, make):
        problem = toy_problem(0.05)
        searcher, networks = make(problem), within(problem)
        assert set(searcher.ask(len(networks) + 5)) == networks
        assert searcher.ask(1) == []

    def test_equal_seeds_give_equal_searches(self, make, steps):
        problem = toy_problem(0.7)
        assert walk(problem, make(problem), steps) == walk(problem, make(problem), steps)

    def test_other_seeds_give_other_searches(self, make):
        searches = [walk(p, make(p), 5) for p in (toy_problem(seed=seed) for seed in range(4))]
        assert all(a != b for a, b in pairwise(searches))

    def test_a_batch_is_as_many_single_asks(self, make):
        problem = toy_problem(0.7)
        single, batched = make(problem), make(problem)
        for _ in range(3):
            batch = batched.ask(9)
            assert batch == [a for _ in range(9) for a in single.ask(1)]
            trials = [judged(problem, i, a) for i, a in enumerate(batch)]
            batched.tell(trials)
            for trial in trials:
                single.tell([trial])
        assert len(set(batch)) == 9

    def test_a_told_network_is_not_proposed(self, make):
        problem = toy_problem(0.05)
        searcher, networks = make(problem), within(problem)
        searcher.tell([judged(problem, i, a) for i, a in enumerate(sorted(networks, key=lambda a: a.key)[:3])])
        assert len(walk(problem, searcher, len(networks))) == len(networks) - 3

    def test_infeasible_trials_are_told_without_scores(self, make, steps):
        problem = toy_problem(0.5)
        searcher = make(problem)
        searcher.tell([Trial(0, TOY.largest(), "infeasible", toy_cost(TOY.largest()))])
        assert set(walk(problem, searcher, steps)) <= within(problem)

    @pytest.mark.parametrize("objectives", [(), ("macs",)])
    def test_interrupted_anywhere_and_replayed(self, make, steps, objectives):
        problem = toy_problem(0.7, objectives=objectives)
        settings = SearchSettings(steps)
        whole = run_search(problem, make(problem), toy_scores, settings, ignore)
        assert sum(t.state == "complete" for t in whole) == steps and any(t.state == "failed" for t in whole)
        for k in range(len(whole) + 1):
            recorded: list[Trial] = []
            resumed = run_search(problem, make(problem), toy_scores, settings, recorded.append, whole[:k])
            assert same(resumed, whole)
            assert same(recorded, whole[k:])

    @pytest.mark.parametrize("objectives", [(), ("macs",)])
    def test_following_a_search_is_asking_and_telling(self, make, steps, objectives):
        problem = toy_problem(0.7, objectives=objectives)
        whole = run_search(problem, make(problem), toy_scores, SearchSettings(2 * steps), ignore)
        for k in range(0, len(whole), 3):
            searcher = make(problem)
            for trial in whole[:k]:
                searcher.follow(trial)
            assert searcher.ask(1) == [whole[k].architecture]

    def test_a_long_replay_proposes_only_its_ends_again(self, make, monkeypatch):
        monkeypatch.setattr(loop, "CHECKED", 2)
        problem = toy_problem(0.7)
        whole = run_search(problem, make(problem), toy_scores, SearchSettings(14), ignore)
        searcher, followed = make(problem), []
        take = searcher.follow
        searcher.follow = lambda trial: followed.append(trial.number) or take(trial)
        assert same(run_search(problem, searcher, toy_scores, SearchSettings(14), ignore, whole), whole)
        assert followed == list(range(2, len(whole) - 2))
        changed = [*whole[:-1], replace(whole[-1], architecture=TOY.largest())]
        with pytest.raises(CorruptRun, match=f"at place {len(whole) - 1} the searcher proposes"):
            run_search(problem, make(problem), toy_scores, SearchSettings(14), ignore, changed)

    def test_replay_of_another_search_is_refused(self, make):
        problem = toy_problem(seed=0)
        trials = run_search(problem, make(problem), toy_scores, SearchSettings(3), ignore)
        other = toy_problem(seed=1)
        with pytest.raises(CorruptRun, match=f"trial 0 of the run is network {trials[0].architecture.key}"):
            run_search(other, make(other), toy_scores, SearchSettings(3), ignore, trials)
