"""The spaces keep the contract at the sizes that they are used in."""

import pytest
from contracts.space import SpaceContract

from nas.budget import Budget
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

SIZES = [
    (DataShape(1, 8, 10), "200kFLOPs"),
    (DataShape(1, 8, 10), "1MFLOPs"),
    (DataShape(3, 32, 10), "30MFLOPs"),
    (DataShape(3, 224, 1000), "300MFLOPs"),
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0].resolution}px-{size[1]}")
@pytest.mark.parametrize("name", SPACES)
class TestSpaces(SpaceContract):
    @pytest.fixture
    def space(self, name, size):
        shape, budget = size
        return sized(SPACES[name], shape, [Budget.parse(budget)], SPACES[name].options())
