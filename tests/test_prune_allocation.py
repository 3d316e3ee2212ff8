"""Allocations: budgets are hit, each method does what its paper says, and bad problems are told as such."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from prune_toy import chain, cifar_resnet, group, in_blocks, problem

from compress.allocate import cheapest
from compress.prune.allocation import ALLOCATIONS
from compress.prune.fitting import fill, shrink
from compress.prune.widths import WidthModel
from nas.budget import check
from nas.errors import InfeasibleBudget, InvalidBudget, InvalidSetting
from nas.seeding import numpy_rng

RESNET, SMALL = cifar_resnet(56, in_blocks), cifar_resnet(20, in_blocks)


def curves(given, steepness):
    """Losses that rise with the square of what is cut."""
    return {g.name: {k: s * (1 - k / g.width) ** 2 for k in range(g.width + 1)} for g, s in zip(given, steepness, strict=True)}


# -- budgets


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("budgets", [("50%",), ("50%", "45%params"), ("30%params",), ("70%B", "60%")])
def test_budgets_are_hit(name, budgets):
    resnet = RESNET if budgets == ("50%",) else SMALL
    given = problem(resnet, *budgets)
    keep = ALLOCATIONS[name](given)
    assert check(given.budgets, resnet.cost(keep)) == []
    widths = {g.name: g.width for g in given.groups}
    assert keep.keys() == widths.keys() and all(0.1 * widths[n] <= k <= widths[n] for n, k in keep.items())
    if name != "latency":  # which keeps to the steps of the machine
        assert 0.99 <= given.usage(keep).max() <= 1
    assert ALLOCATIONS[name](problem(resnet, *budgets)) == keep


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_budgets_on_time_are_kept_with_round_widths(name):
    given = problem(RESNET, "60%latency", "70%params")
    keep = ALLOCATIONS[name](given)
    assert check(given.budgets, RESNET.cost(keep)) == []
    assert all(k in given.options[n] for n, k in keep.items())
    assert given.usage(keep).max() > 0.95


def test_widths_are_round_but_for_a_few():
    given = problem(RESNET, "50%")
    keep = ALLOCATIONS["global"](given)
    assert sum(k not in given.options[n] for n, k in keep.items()) <= 2


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_groups_that_are_not_given_stay_whole(name):
    given = problem(RESNET, "80%")
    some = replace(given, groups=given.groups[5:])
    keep = ALLOCATIONS[name](some)
    assert keep.keys() == {g.name for g in given.groups[5:]} and some.fits(keep)


@pytest.mark.parametrize("name", sorted(set(ALLOCATIONS) - {"latency"}))
@pytest.mark.parametrize("budgets", [("40%", "50%params"), ("25kBpeak", "80%B")])
def test_coupled_costs_are_hit(name, budgets):
    given = problem(chain(64, 48, 96, 64), *budgets)
    assert 0.99 <= given.usage(ALLOCATIONS[name](given)).max() <= 1


# -- methods


def test_uniform_keeps_the_same_share():
    given = problem(RESNET, "50%", round_to=1)
    keep = ALLOCATIONS["uniform"](given)
    shares = [keep[g.name] / g.width for g in given.groups]
    assert max(shares) - min(shares) <= 2 / 16


def test_global_cuts_below_one_threshold_whatever_the_scale_of_a_group():
    given = problem(RESNET, "50%", round_to=1, least=0.01)
    keep = ALLOCATIONS["global"](given)
    scaled = {name: 10.0**i * s for i, (name, s) in enumerate(given.scores.items())}
    assert ALLOCATIONS["global"](replace(given, scores=scaled)) == keep
    values = {name: np.sort(s / s.mean())[::-1] for name, s in given.scores.items()}
    kept = np.concatenate([values[n][:k] for n, k in keep.items()])
    lost = np.concatenate([values[n][k:] for n, k in keep.items()])
    # a group keeps one unit at least, and what is given back at the end is little
    assert np.mean(kept > lost.max()) > 0.95


def test_units_of_the_same_worth_are_shared_out():
    given = problem(RESNET, "50%", scores={g.name: np.ones(g.width) for g in RESNET.groups})
    keep = ALLOCATIONS["global"](given)
    assert all(0.37 <= keep[g.name] / g.width <= 0.63 for g in given.groups)


def test_isomorphic_groups_are_ranked_among_themselves():
    """Groups of two convolutions have flat scores, one with a third reader steep ones, of which most are below the mean."""
    plain = chain(*[32] * 6)
    first, *others = plain.groups
    more = replace(first, members=(*first.members, *group("conv0", 32, ["conv3"]).members[1:]))
    widths = WidthModel(plain.plan, (more, *others))
    flat = {g.name: np.linspace(0.9, 1.1, 32) for g in others}
    given = problem(widths, "50%", scores={"conv0": np.geomspace(1e-3, 1, 32), **flat}, round_to=1)
    by_kind, at_once = ALLOCATIONS["isomorphic"](given), ALLOCATIONS["global"](given)
    shares = np.array(list(by_kind.values())) / 32
    assert shares.max() - shares.min() <= 2 / 32 < (np.array(list(at_once.values())) / 32).max() - at_once["conv0"] / 32


def test_sensitivity_rises_to_one_level():
    given = problem(cifar_resnet(8), "60%", round_to=1)
    linear = {g.name: {0: s, g.width: 0.0} for g, s in zip(given.groups, (1.0, 2.0, 4.0), strict=True)}
    keep = ALLOCATIONS["sensitivity"](replace(given, curves=linear))
    lost = [linear[g.name][0] * (1 - keep[g.name] / g.width) for g in given.groups]
    assert max(lost) - min(lost) <= 2 * max(1 / 16, 2 / 32, 4 / 64)


def test_precrop_takes_widths_from_the_root_of_salience():
    given = problem(chain(256, 256, 256), "30%")
    scores = {g.name: np.full(g.width, s) for g, s in zip(given.groups, (16.0, 4.0, 1.0), strict=True)}
    keep = ALLOCATIONS["precrop"](replace(given, scores=scores))
    first, second, third = (keep[g.name] / g.width for g in given.groups)
    assert (first / second, second / third) == (pytest.approx(2, rel=0.2), pytest.approx(2, rel=0.2))


# -- rate and distortion


@pytest.mark.parametrize("seed", range(5))
def test_rd_is_optimal_where_costs_add_up(seed):
    rng = numpy_rng(seed, "rd")
    widths = cifar_resnet(8)
    given = problem(widths, f"{rng.uniform(40, 80):.0f}%", round_to=16)
    given = replace(given, curves=curves(given.groups, rng.uniform(0.1, 5, 3)))
    every = [dict(zip(given.options, units, strict=True)) for units in product(*given.options.values())]
    best = min(given.loss(keep) for keep in every if given.fits(keep))
    keep = ALLOCATIONS["rd"](given)
    assert given.fits(keep) and given.loss(keep) <= best * (1 + 1e-12)
    if all(k in given.options[n] for n, k in keep.items()):
        assert given.loss(keep) == pytest.approx(best, rel=1e-12)


def test_rd_is_nearly_optimal_where_costs_are_coupled():
    given = problem(chain(32, 64, 48, 64), "40%", "60%params")
    given = replace(given, curves=curves(given.groups, (4.0, 0.5, 3.0, 1.0)))
    every = (dict(zip(given.options, units, strict=True)) for units in product(*given.options.values()))
    best = min(given.loss(keep) for keep in every if given.fits(keep))
    keep = ALLOCATIONS["rd"](given)
    assert given.fits(keep) and given.loss(keep) < 1.02 * best < 0.7 * given.loss(ALLOCATIONS["uniform"](given))


@pytest.mark.parametrize("seed", range(10))
def test_the_dynamic_program_finds_what_brute_force_finds(seed):
    rng = numpy_rng(seed, "tables")
    tables = [(np.sort(rng.uniform(0, 1, 4)), rng.uniform(0, 1, 4)) for _ in range(5)]
    limit = rng.uniform(1.5, 3)
    sums = {c: [sum(t[i][o] for t, o in zip(tables, c, strict=True)) for i in (0, 1)] for c in product(range(4), repeat=5)}
    affordable = [c for c, (cost, _) in sums.items() if cost <= limit] or [(0,) * 5]
    assert tuple(cheapest(tables, limit)) == min(affordable, key=lambda c: sums[c][1])


def test_the_dynamic_program_thins_out_its_states_and_still_keeps_the_limit():
    rng = numpy_rng(0, "tables")
    tables = [(np.linspace(0, c, 32), s * np.linspace(1, 0, 32) ** 2) for c, s in rng.uniform(0.5, 2, (40, 2))]
    chosen = cheapest(tables, 20.0)
    cost, loss = (sum(t[i][o] for t, o in zip(tables, chosen, strict=True)) for i in (0, 1))
    # by Lagrange's multiplier no choice within the limit loses less than this
    bound = max(sum(np.min(t[1] + price * t[0]) for t in tables) - 20.0 * price for price in np.geomspace(0.01, 10, 200))
    assert cost <= 20.0 and bound <= loss <= 1.01 * bound


# -- time


def test_the_latency_allocation_uses_the_widest_width_of_a_step():
    given = problem(RESNET, "60%latency", round_to=1)
    keep = ALLOCATIONS["latency"](given)
    assert all(units % 8 == 0 or units == given.smallest[name] for name, units in keep.items())
    assert any(keep[g.name] < g.width for g in given.groups)


def test_the_latency_allocation_cuts_the_slow_groups_first():
    """All units are worth the same; a unit of the first stage costs four times the pixels, for a quarter of the channels."""
    given = problem(RESNET, "80%latency", scores={g.name: np.ones(g.width) for g in RESNET.groups})
    keep = ALLOCATIONS["latency"](given)
    cut = {name: given.whole[name] - units for name, units in keep.items()}
    assert any(cut[name] for name in cut if name.startswith("layer1"))
    assert not any(cut[name] for name in cut if name.startswith("layer3"))


def test_time_is_saved_for_budgets_on_anything():
    given = problem(RESNET, "60%params")
    keep = ALLOCATIONS["latency"](given)
    assert given.fits(keep) and all(units % 8 == 0 for units in keep.values())


# -- options and steps


@pytest.mark.parametrize(
    ("width", "each", "multiple_of", "round_to", "step", "first"),
    [
        (64, 1, 1, 8, 8, 8),
        (32, 1, 1, 8, 4, 4),
        (16, 1, 1, 8, 2, 2),
        (12, 1, 1, 8, 1, 2),
        (16, 1, 4, 8, 4, 4),
        (12, 64, 1, 8, 1, 2),  # heads
        (2048, 1, 1, 8, 64, 256),
        (64, 1, 1, 1, 2, 8),
        (20, 1, 1, 8, 2, 2),
        (96, 1, 3, 8, 12, 12),
    ],
)
def test_steps_are_round_and_neither_too_coarse_nor_too_fine(width, each, multiple_of, round_to, step, first):
    widths = chain(8, 8)
    only = group("conv0", width, ["conv1"], each, multiple_of)
    given = replace(problem(widths, "50%"), groups=(only,), scores={"conv0": np.ones(width)}, round_to=round_to)
    assert given.steps["conv0"] == step
    assert given.options["conv0"][0] == first and given.options["conv0"][-1] == width
    assert all(b - a == step for a, b in zip(given.options["conv0"][:-2], given.options["conv0"][1:-1], strict=True))


def test_all_is_taken_or_given_only_as_far_as_the_budgets_say():
    given = problem(RESNET, "40%", "40%params")
    low = shrink(given, given.whole, given.options)
    assert given.fits(low) and given.usage(low).max() > 0.95
    high = fill(given, given.smallest, given.options)
    assert given.fits(high) and given.usage(high).max() > 0.95
    assert shrink(given, low, given.options) == low


def test_worthless_units_go_first():
    given = problem(chain(32, 32, 32), "80%")
    scores = {name: np.where(np.arange(32) < (16 if name == "conv1" else 0), 0.0, 1.0) for name in given.scores}
    given = replace(given, scores=scores, round_to=1)
    assert given.loss(ALLOCATIONS["rd"](given)) == 0 < given.loss(ALLOCATIONS["uniform"](given))


def test_curves_are_interpolated_and_go_on_as_they_began():
    given = problem(chain(16, 16), "50%")
    given = replace(given, curves=dict.fromkeys(("conv0", "conv1"), {4: 7.0, 8: 3.0, 16: 1.0}))
    assert given.losses["conv0"][[0, 1, 4, 6, 8, 12, 16]].tolist() == [10, 9, 6, 4, 2, 1, 0]


# -- bad problems


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_what_cannot_be_reached_is_told_with_the_nearest_budget(name):
    given = problem(RESNET, "3%")
    told = r"no cut keeps 3%: the smallest, 10% of each of 27 groups, has .* MFLOPs; the nearest feasible budget is"
    with pytest.raises(InfeasibleBudget, match=told) as error:
        ALLOCATIONS[name](given)
    nearest = str(error.value).rsplit(" ", 1)[1]
    hit = problem(RESNET, nearest)
    assert hit.fits(ALLOCATIONS[name](hit))


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_a_budget_above_the_network_is_told(name):
    with pytest.raises(InvalidBudget, match=r"budget '150%' allows 188.* MFLOPs, and the network has 125.* MFLOPs: nothing"):
        ALLOCATIONS[name](problem(RESNET, "150%"))


def test_what_cannot_be_judged_is_told():
    with pytest.raises(InvalidBudget, match="budget '5mJ' cannot be judged: energy_mj is not known"):
        ALLOCATIONS["uniform"](problem(RESNET, "5mJ"))
    with pytest.raises(InvalidBudget, match="no budget was given"):
        ALLOCATIONS["rd"](problem(RESNET))
    with pytest.raises(InvalidSetting, match="needs times, and nothing tells any"):
        ALLOCATIONS["latency"](problem(cifar_resnet(8), "50%"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scores": {}}, "group 'conv0' has 16 units; give a finite score for each, not none"),
        ({"scores": {"conv0": np.ones(15), "conv1": np.ones(8)}}, r"not \(15,\), 0 of them not finite"),
        ({"scores": {"conv0": np.full(16, np.nan), "conv1": np.ones(8)}}, r"\(16,\), 16 of them not finite"),
        ({"round_to": 0}, "round_to 0 and least 0.1 given"),
        ({"least": 1.5}, "round_to 8 and least 1.5 given"),
        ({"curves": {"conv0": {8: 1.0}}}, "there is no curve of conv1"),
    ],
)
def test_a_problem_that_does_not_hold_together_is_told(wrong, message):
    with pytest.raises(InvalidSetting, match=message):
        replace(problem(chain(16, 8), "50%"), **wrong)
