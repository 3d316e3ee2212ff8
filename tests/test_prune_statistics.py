"""Statistics over channels, and forwards that insist on a precision: what a cut may change, and what it may not."""

import pytest
import torch
import torch.nn as nn
from networks import images

from compress.prune.dependencies import analyse, cut, remove
from compress.prune.groups import Cut


class Scaled(nn.Module):
    """A norm over channels by hand."""

    def __init__(self, width, run):
        super().__init__()
        self.weight, self.bias, self.run = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width)), run

    def forward(self, x):
        return self.run(x) * self.weight[:, None, None] + self.bias[:, None, None]


def _standardized(x):
    mean = x.mean(1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)


@pytest.mark.parametrize(
    "norm",
    [
        _standardized,
        lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6),
        lambda x: x / (x.std((1, 2, 3), keepdim=True) + 1e-6),
        lambda x: x / (1 + x.amax(1)[:, None]),
        lambda x: x / (1 + torch.linalg.vector_norm(x, dim=1, keepdim=True)),
        lambda x: x / (1 + x.max(dim=1, keepdim=True)[0]),
    ],
)
def test_norms_over_channels_by_hand_are_cut_through(norm):
    torch.manual_seed(0)
    first = (nn.Conv2d(3, 12, 3, padding=1), Scaled(12, norm), nn.ReLU(), nn.Conv2d(12, 8, 3), Scaled(8, norm))
    module, x = nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval(), images(2, 3, 8, 8)
    groups = analyse(module, x)
    assert {group.name: group.width for group in groups} == {"0": 12, "3": 8}
    smaller = remove(module, groups, [Cut("0", (1, 2, 7)), Cut("3", (0,))])
    # the same with statistics over the channels that are left
    by_hand = norm(module[0](x)[:, smaller_units(12, (1, 2, 7))])
    torch.testing.assert_close(smaller[1].run(smaller[0](x)), by_hand)
    assert smaller(x).shape == (2, 5)


def smaller_units(width, gone):
    return [unit for unit in range(width) if unit not in gone]


def test_a_mean_over_branches_is_no_statistic_over_channels():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x):
            return self.head(torch.stack([self.a(x), self.b(x)], 1).mean(1).mean((2, 3)))

    (group,) = analyse(Branches().eval(), images(2, 3, 8, 8))
    assert {member.layer for member in group.members} == {"a", "b", "head"}


def test_a_mean_that_is_the_output_holds_its_channels_or_is_cut_rightly():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3)).eval()

    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = module

        def forward(self, x):
            return self.body(x).mean((2, 3)).mean(1, keepdim=True)

    groups = {group.name: group.width for group in analyse(Averaged().eval(), images(2, 3, 8, 8))}
    assert groups["body.0"] == 8


def test_a_forward_that_insists_on_a_precision_is_analysed():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

        def forward(self, x):
            moved = torch.zeros(len(x), 8, 6, 6)
            moved[:, :, 1:] = self.a(x)[:, :, :-1]
            return self.head(self.b(moved).relu().mean((2, 3)))

    module, x = Fixed().eval(), images(2, 3, 8, 8)
    assert "b" in {group.name for group in analyse(module, x)}
    assert cut(module, [Cut("b", (1, 4))], x)(x).shape == (2, 5)
