from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from toy_space import ToySpace

from nas.cost.counting import count
from nas.cost.table import CostTable
from nas.errors import InvalidArchitecture, InvalidSetting
from nas.plan import PlanBlock
from nas.seeding import numpy_rng
from search_spaces import SPACES
from search_spaces.staged import DataShape


def all_of(space):
    """Every network of a small space, once."""
    found = {}
    for options in product(*(c.options for c in space.choices)):
        arch = space.architecture(dict(zip((c.name for c in space.choices), options, strict=True)))
        found[arch.key] = arch
    return list(found.values())


def counted(space, archs):
    return np.array([[count(space.plan(a)).value(n) for n in ("macs", "params")] for a in archs])


def test_every_network_of_a_small_space_costs_what_its_plan_counts():
    space = ToySpace()
    archs = all_of(space)
    totals = CostTable(space).totals(space.encode(archs))
    assert len(archs) == 192 and totals.dtype == np.int64
    assert np.array_equal(totals, counted(space, archs))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_the_real_spaces_too(name):
    family = SPACES[name]
    space = family.make(DataShape(3, 32, 10), family.macros[0], 1.0, family.options())
    rng = numpy_rng(0, "table")
    archs = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(60))]
    assert np.array_equal(CostTable(space).totals(space.encode(archs)), counted(space, archs))


def test_what_was_asked_before_does_not_matter():
    space = ToySpace()
    archs = all_of(space)
    encoded = space.encode(archs)
    at_once = CostTable(space).totals(encoded)
    table = CostTable(space)
    order = numpy_rng(0, "order").permutation(len(archs))
    for rows in np.array_split(order, 40):
        assert np.array_equal(table.totals(encoded[rows]), at_once[rows])
    assert np.array_equal(table.totals(encoded), at_once)


def test_each_combination_is_built_once():
    built = []

    class Watched(ToySpace):
        @property
        def blocks(self):
            def watch(block):
                return PlanBlock(block.name, block.depends_on, lambda v, s: built.append(block.name) or block.build(v, s))

            return tuple(watch(b) for b in super().blocks)

    space = Watched()
    table = CostTable(space)
    encoded = space.encode(all_of(space))
    table.totals(encoded)
    assert built.count("stem") == 4  # resolution x width
    seen = len(built)
    table.totals(encoded)
    assert len(built) == seen


def test_no_rows():
    space = ToySpace()
    assert CostTable(space).totals(space.encode([])).shape == (0, 2)


def test_rows_of_another_space_are_refused():
    space = ToySpace()
    table = CostTable(space)
    with pytest.raises(InvalidArchitecture, match=r"shape \(1, 4\).*expected \(n, 9\)"):
        table.totals(np.zeros((1, 4), dtype=np.int64))
    with pytest.raises(InvalidArchitecture, match="no option"):
        table.totals(space.encode([space.largest()]) + 1)
    with pytest.raises(InvalidArchitecture, match="no option"):
        table.totals(space.encode([space.smallest()]) - 1)


def test_an_operation_that_cannot_be_counted_is_refused():
    class Odd(ToySpace):
        @property
        def blocks(self):
            stem, *rest = super().blocks
            odd = PlanBlock("odd", stem.depends_on, lambda v, s: [replace(stem.build(v, s)[0], op="fft")])
            return (odd, *rest)

    space = Odd()
    with pytest.raises(InvalidSetting, match="block 'odd' has operation 'fft'"):
        CostTable(space).totals(space.encode([space.largest()]))
