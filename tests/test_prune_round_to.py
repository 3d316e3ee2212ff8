"""An explicit --round-to is kept or refused, and a network that is not faster is said to be so."""

from dataclasses import replace

import numpy as np
import pytest
from prune_toy import chain, cifar_resnet, group, in_blocks, problem

from compress.prune.allocation import ALLOCATIONS
from compress.prune.pipeline import Recipe
from nas.budget import Metric, check
from nas.cli.pruning.clock import SideBySide
from nas.cli.pruning.job import recipe_of
from nas.cli.pruning.settings import PruneSettings
from nas.cost.measure import BUSY
from nas.errors import InfeasibleBudget

RESNET = cifar_resnet(56, in_blocks)


@pytest.mark.parametrize("round_to", [4, 8, 16])
@pytest.mark.parametrize("name", ALLOCATIONS)
def test_channels_are_multiples_or_the_group_is_whole(name, round_to):
    given = replace(problem(RESNET, "60%"), round_to=round_to, exact=True)
    keep = ALLOCATIONS[name](given)
    assert check(given.budgets, RESNET.cost(keep)) == []
    assert all(k % round_to == 0 or k == given.whole[n] for n, k in keep.items())
    assert any(k < given.whole[n] for n, k in keep.items())


@pytest.mark.parametrize(
    ("width", "each", "multiple_of", "round_to", "options"),
    [
        (48, 1, 1, 16, (16, 32, 48)),
        (29, 1, 1, 8, (8, 16, 24, 29)),
        (10, 1, 1, 16, (10,)),
        (12, 2, 1, 8, (4, 8, 12)),
        (12, 1, 3, 8, (12,)),
        (8, 64, 1, 16, (1, 2, 3, 4, 5, 6, 7, 8)),
    ],
)
def test_options(width, each, multiple_of, round_to, options):
    only = group("conv0", width, ["conv1"], each, multiple_of)
    given = replace(
        problem(chain(8, 8), "50%"), groups=(only,), scores={"conv0": np.ones(width)}, round_to=round_to, exact=True
    )
    assert given.options["conv0"] == given.finer(4)["conv0"] == options


def test_what_cannot_be_kept_is_refused():
    given = replace(problem(RESNET, "30%"), round_to=32, exact=True)
    with pytest.raises(InfeasibleBudget, match=r"no cut keeps 30% in multiples of 32 channels: .* or give a smaller --round"):
        given.check()


def test_only_what_is_asked_for_is_exact():
    assert (recipe_of(PruneSettings()).round_to, recipe_of(PruneSettings()).exact) == (8, False)
    assert (recipe_of(PruneSettings(round_to=8)).round_to, recipe_of(PruneSettings(round_to=8)).exact) == (8, True)


def side_by_side(cut, spread=0.02, context="machine quiet"):
    return SideBySide(Metric(2.0, "ms", "measured", 0.02, context), Metric(2.0 * cut, "ms", "measured", spread, context))


@pytest.mark.parametrize(
    ("cut", "macs", "spread", "context", "said"),
    [
        (1.2, 0.5, 0.02, "machine quiet", True),
        (0.98, 0.5, 0.02, "machine quiet", True),
        (0.9, 0.5, 0.02, "machine quiet", False),
        (1.2, 1.0, 0.02, "machine quiet", False),
        (1.22, 0.5, 0.02, BUSY, True),
        (1.22, 0.5, 0.8, BUSY, False),
        (0.98, 0.5, 0.02, BUSY, False),
    ],
)
def test_not_faster(cut, macs, spread, context, said):
    text = side_by_side(cut, spread, context).slower(macs, Recipe())
    assert bool(text) == said and (not said or f"{cut:.0%} of the original's time" in text)
    assert "--round-to" not in side_by_side(1.2).slower(0.5, Recipe(round_to=16, exact=True))
