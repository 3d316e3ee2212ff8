"""Seeds are functions of (seed, purpose), the same everywhere and for ever."""

import numpy as np

from nas.seeding import derive, numpy_rng


def test_seeds_are_pinned():
    # a run that is resumed under a later version draws what it would have drawn
    assert derive(0) == 3456079177858693020
    assert derive(7, "ask", 3) == 7888614395234330591


def test_purposes_have_seeds_of_their_own():
    paths = [(seed, name, step) for seed in range(5) for name in ("ask", "augment") for step in range(50)]
    seeds = {derive(*path) for path in paths}
    assert len(seeds) == len(paths)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_one_purpose_are_equal_and_independent():
    a, b = numpy_rng(1, "x"), numpy_rng(1, "x")
    a.random(10)
    assert np.array_equal(numpy_rng(1, "x").random(5), b.random(5))
