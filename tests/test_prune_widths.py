"""The plan of a cut network: the same as the trace of the network that is really cut, for any widths."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from prune_toy import chain, cifar_resnet, in_blocks
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from compress.prune.attention import prepare
from compress.prune.cifar_resnet import CifarResNet
from compress.prune.dependencies import analyse, remove
from compress.prune.groups import Cut
from compress.prune.widths import WidthModel
from nas.cost.counting import count
from nas.cost.trace import trace
from nas.errors import InvalidSetting
from nas.seeding import numpy_rng


def conv_norm(before, after, kernel=3, stride=1, groups=1):
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


class Flat(nn.Sequential):
    """Maps are flattened: a channel is many inputs of the linear layer."""

    def __init__(self):
        first = (nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        super().__init__(*first, conv_norm(12, 10), nn.Flatten(), nn.Linear(160, 20), nn.ReLU(), nn.Linear(20, 5))


class Dense(nn.Module):
    """Concatenation, and a norm of what was concatenated."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = conv_norm(3, 8), conv_norm(8, 6), conv_norm(14, 10)
        self.norm, self.head = nn.BatchNorm2d(24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.left(x)], 1)
        x = F.relu(self.norm(torch.cat([x, self.right(x)], 1)))
        return self.head(F.avg_pool2d(x, 2).mean((2, 3)))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection, with a shortcut; then convolutions in groups."""

    def __init__(self):
        super().__init__()
        self.stem, self.expand, self.depthwise = conv_norm(3, 8), conv_norm(8, 24, 1), conv_norm(24, 24, 5, groups=24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project, self.grouped = nn.Conv2d(24, 8, 1), nn.Sequential(conv_norm(8, 32, 1), conv_norm(32, 32, 3, 2, 8))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        y = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1))))) * y
        return self.head(self.grouped(x + self.project(y)).mean((2, 3)))


class Attention(nn.Module):
    """Attention by plain matrix products."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.qkv, self.proj = 5, nn.Linear(20, 60), nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(x.shape[0], x.shape[1], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class Products(nn.Module):
    """Maps as sequences of pixels, which attend to each other."""

    def __init__(self):
        super().__init__()
        self.stem, self.attention, self.head = nn.Conv2d(3, 20, 4, 4), Attention(), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head((x + self.attention(x)).mean(1))


def transformer():
    return torchvision.models.VisionTransformer(8, 4, 2, 4, 24, 40, num_classes=5)


def convnext():
    """Norms are functions over maps whose channels are last; each block is scaled by a parameter of shape (C, 1, 1)."""
    return ConvNeXt([CNBlockConfig(12, 20, 2), CNBlockConfig(20, None, 1)], num_classes=5)


def windows():
    """Attention in windows, by a function that torch.fx does not look into."""
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [3, 3], num_classes=5)


NETWORKS = {
    "windows": windows,
    "flat": Flat,
    "dense": Dense,
    "inverted": Inverted,
    "cifar-resnet": lambda: CifarResNet(14),
    "products": Products,
    "transformer": transformer,
    "convnext": convnext,
    "squeezenet": lambda: torchvision.models.squeezenet1_1(num_classes=5),
}
SIDE = {"cifar-resnet": 32, "squeezenet": 32, "convnext": 16, "windows": 32}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    module, side = prepare(NETWORKS[request.param]().eval()), SIDE.get(request.param, 8)
    example = torch.randn(1, 3, side, side)
    groups = analyse(module, example)
    return module, example, WidthModel(trace(module, example), groups)


def random_keep(widths, seed):
    rng = numpy_rng(seed, "keep")
    return {g.name: g.multiple_of * int(rng.integers(1, g.width // g.multiple_of + 1)) for g in widths.groups}


def cuts_to(widths, keep, seed):
    rng = numpy_rng(seed, "units")
    gone = ((g, sorted(rng.permutation(g.width)[keep[g.name] :].tolist())) for g in widths.groups)
    return [Cut(g.name, tuple(units)) for g, units in gone if units]


def test_a_plan_with_all_units_is_the_plan(network):
    _, _, widths = network
    assert widths.groups and widths.plan_with(widths.full) == widths.plan == widths.plan_with({})


@pytest.mark.parametrize("seed", range(3))
def test_the_plan_is_the_trace_of_the_network_that_is_cut(network, seed):
    module, example, widths = network
    keep = random_keep(widths, seed)
    smaller = remove(module, widths.groups, cuts_to(widths, keep, seed))
    plan, traced = widths.plan_with(keep), trace(smaller, example)
    assert plan == traced
    assert widths.cost(keep) == count(traced)


# -- values


def test_all_that_is_asked_for_is_counted_and_timed():
    widths = cifar_resnet(8, in_blocks)
    keep = {"layer1.0.conv1": 8}
    assert widths.cost(keep).metrics == {**count(widths.plan_with(keep)).metrics, **in_blocks(widths.plan_with(keep))}
    assert widths.cost(keep, ["params", "latency_ms"]).values().keys() == {"params", "latency_ms"}
    assert widths.cost(keep, ["macs"]).values().keys() == {"macs"}
    assert "latency_ms" not in cifar_resnet(8).cost(keep).values()


def test_half_of_the_inner_channels_is_half_of_the_blocks():
    widths = cifar_resnet(56)
    whole, half = (widths.cost(keep).values()["macs"] for keep in ({}, {g.name: g.width // 2 for g in widths.groups}))
    outside = 3 * 16 * 9 * 32 * 32 + 640  # the first convolution and the classifier
    assert whole == 125_485_696 and 2 * (half - outside) == whole - outside


def test_widths_that_are_no_choice_are_told():
    widths = chain(16, 16)
    with pytest.raises(InvalidSetting, match="there is no group 'conv9' to keep 3 units of; use some of conv0, conv1"):
        widths.plan_with({"conv9": 3})
    for units in (0, 17):
        with pytest.raises(InvalidSetting, match=f"group 'conv0' cannot keep {units} units; keep 1 to 16, a multiple of 1"):
            widths.plan_with({"conv0": units})
