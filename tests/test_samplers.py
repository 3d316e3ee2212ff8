"""Samplers of a supernet's training: what they draw, that they draw it again, and what a step costs."""

import numpy as np
import pytest
from networks import space_for

from nas.budget import Budget, Cost, Metric, share
from nas.cost.counting import count
from nas.errors import InvalidSetting
from nas.training.samplers import NEAR, SAMPLERS, Sampling, near_budget, pair, sandwich, step_cost
from search_spaces import SPACES

SPACE = space_for("resnet")


def macs(arch):
    return count(SPACE.plan(arch)).values()["macs"]


def sampling(seed=0, limit=300e3):
    return Sampling(SPACE, seed, lambda arch: macs(arch) / limit)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("family", SPACES)
class TestSamplerContract:
    def test_the_largest_network_comes_first_and_all_are_of_the_space(self, name, family):
        space = space_for(family)
        sampler = SAMPLERS[name](Sampling(space, 0, lambda arch: 0.7))
        for step in range(5):
            first, *others = sampler(step)
            assert first == space.largest() and others
            assert all(space.architecture(arch.choices) == arch for arch in others)

    def test_a_step_draws_the_same_again_in_any_order(self, name, family):
        space = space_for(family)
        made = [SAMPLERS[name](Sampling(space, 7, lambda arch: 0.7)) for _ in range(2)]
        forward = [made[0](step) for step in range(6)]
        assert [made[1](step) for step in reversed(range(6))] == forward[::-1]
        assert len({arch.key for drawn in forward for arch in drawn}) > 3
        assert forward != [SAMPLERS[name](Sampling(space, 8, lambda arch: 0.7))(step) for step in range(6)]


def test_sandwich_holds_the_smallest_and_two_others():
    largest, smallest, *others = sandwich(sampling())(3)
    assert (largest, smallest) == (SPACE.largest(), SPACE.smallest()) and len(set(others)) == 2


def test_networks_near_the_budget_are_drawn():
    shares = [macs(near_budget(sampling())(step)[1]) / 300e3 for step in range(60)]
    assert min(shares) >= NEAR[0] and max(shares) <= NEAR[1]
    anywhere = [macs(pair(sampling())(step)[1]) / 300e3 for step in range(60)]
    assert not all(NEAR[0] <= value <= NEAR[1] for value in anywhere)


def test_the_nearest_of_the_draws_is_taken_where_none_is_near():
    tiny = sampling(limit=macs(SPACE.smallest()) / 4)
    for step in range(5):
        drawn = min((tiny.draw(step, i) for i in range(10)), key=macs)
        assert near_budget(tiny)(step)[1] == drawn


def test_a_metric_that_is_not_known_draws_a_network_all_the_same():
    unknown = Sampling(SPACE, 0, lambda arch: float("inf"))
    assert len({near_budget(unknown)(step)[1].key for step in range(8)}) > 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_cost_of_a_step_is_its_mean_over_that_of_the_largest(name):
    sampler = SAMPLERS[name](sampling())
    steps = [sum(macs(arch) for arch in sampler(step)) for step in range(400)]
    assert step_cost(sampler, macs) == pytest.approx(np.mean(steps) / macs(SPACE.largest()), rel=0.05)


def cost(**values):
    return Cost({name: Metric(value, "", "test") for name, value in values.items()})


def test_a_share_is_that_of_the_tightest_budget():
    budgets = [Budget.parse("2MFLOPs"), Budget.parse("10kparams")]
    assert share(budgets, cost(macs=1e6, params=8e3)) == pytest.approx(0.8)
    assert share(budgets, cost(macs=3e6, params=8e3)) == pytest.approx(1.5)
    assert share(budgets, cost(macs=1e6)) == float("inf")
    assert share([], cost(macs=1e6)) == 0.0


def test_a_name_that_is_not_known_is_refused_with_the_others(tmp_path):
    from nas.cli.job import make_job
    from nas.cli.settings import Settings

    with pytest.raises(InvalidSetting, match=r"--sampler 'sandwitch'.*did you mean sandwich"):
        make_job(Settings(budget=("3MFLOPs",), data=f"npz:{tmp_path}/none.npz", sampler="sandwitch"))
