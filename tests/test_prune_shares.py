"""Budgets are met where the units of a group own different numbers of channels."""

import pytest
import torch
from torch import Tensor, nn

from compress.prune.passes import pruned
from compress.prune.pipeline import Recipe, analysed, example_of
from nas.budget import Budget, check
from nas.cost.counting import count
from nas.cost.trace import trace

EXAMPLE = example_of((3, 8, 8))


class Beside(nn.Module):
    """Some channels are read by a layer of their own: of a wide convolution, which others of its channels leave as it is."""

    def __init__(self):
        super().__init__()
        self.stem, self.part = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.head = nn.Conv2d(24, 16, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat((self.part(x[:, :8]), x[:, 8:]), 1)
        return self.head(self.last(x).relu().mean((2, 3)))


class Twofold(nn.Module):
    """The first channels are read twice, by a wide layer: cut units of one group cost other numbers of multiply-adds."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(40, 64, 3), nn.Linear(64, 5)
        with torch.no_grad():
            self.stem.weight[:8] *= 10  # they stay

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.wide(torch.cat((x, x[:, :8]), 1)).relu().mean((2, 3)))


@pytest.mark.parametrize("network", [Beside, Twofold])
def test_budgets_are_kept_where_units_cost_more_than_their_share(network):
    torch.manual_seed(0)
    whole = network()
    subject = analysed(whole, EXAMPLE)
    budgets = [Budget.parse("70%").resolve(subject.cost)]
    found = pruned(subject, budgets, Recipe("l1", "uniform", round_to=1))
    cost = count(trace(found.module, EXAMPLE))
    assert cost.metrics == found.subject.cost.metrics
    assert not check(budgets, cost) and cost.value("macs") > 0.85 * budgets[0].limit
