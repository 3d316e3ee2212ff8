"""Modules traced and counted twice: by their plan, and by fvcore."""

import torch
from torch import nn

from nas.cost.counting import count
from nas.cost.recount import recount
from nas.cost.trace import trace


def traced(module, *shape):
    return trace(module, torch.zeros(shape))


def assert_counts_agree(module, example, names=("macs", "params", "activations")):
    planned, counted = count(trace(module, example)), recount(module, example)
    assert planned.uncounted == counted.uncounted == ()
    assert {n: planned.value(n) for n in names} == {n: counted.value(n) for n in names}
    return planned


class Graph(nn.Module):
    """A convolution, a batch norm, and a forward that is given."""

    def __init__(self, run):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
        self.second = nn.Conv2d(4, 4, 1, bias=False)
        self.run = run

    def forward(self, x):
        return self.run(self, x)
