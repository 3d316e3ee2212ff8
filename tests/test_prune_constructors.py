"""What constructors of other libraries do, in small."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from networks import images
from torch import Tensor

from compress.prune.passes import pruned
from compress.prune.pipeline import Recipe, analysed
from nas.budget import Budget
from nas.cost.counting import count
from nas.cost.trace import trace


class OwnLinear(nn.Linear):
    """A linear layer that torch.fx looks into, as in timm."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def classifier(linear: type[nn.Linear], bias: bool = True) -> nn.Module:
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), *pool, linear(16, 32, bias), nn.ReLU(), linear(32, 10, bias))


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_by_function_is_one(bias):
    plans = [trace(classifier(linear, bias), images(1, 3, 8, 8)) for linear in (OwnLinear, nn.Linear)]
    assert plans[0].canonical() == plans[1].canonical()
    assert [layer.name for layer in plans[0].layers] == [layer.name for layer in plans[1].layers]


class Tied(nn.Module):
    """A weight that is read twice is no layer's own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.fc.weight), self.fc.weight)


def test_a_weight_that_two_products_read_is_stored_once():
    cost = count(trace(Tied(), torch.zeros(1, 8)))
    assert (cost.value("params"), cost.value("macs"), cost.uncounted) == (64, 128, ())


def test_a_budget_is_kept_where_linear_layers_are_functions():
    subject = analysed(classifier(OwnLinear), images(2, 3, 8, 8))
    budget = Budget.parse("50%").resolve(subject.cost)
    found = pruned(subject, [budget], Recipe(importance="l1", allocation="uniform", round_to=1))
    assert count(trace(found.module, subject.example)).value("macs") == found.subject.cost.value("macs") <= budget.limit
