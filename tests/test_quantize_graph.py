"""The graph that is quantized computes what the network does, and its layers, points and counts are the network's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import images
from quantize_toy import Mini, conv_bn, mini, plain, ready
from torch import Tensor, nn

from compress.quantize.graph import network_of
from nas.cost.counting import count, macs, params
from nas.cost.trace import trace
from nas.errors import InvalidSetting

SHAPE = (3, 8, 8)
aten = torch.ops.aten


def pooled(*layers: nn.Module) -> list[nn.Module]:
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()]


class Shared(nn.Module):
    """A convolution that is called twice, and two that share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 6))
        self.twice, self.one, self.other = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.norm, self.tied = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = self.norm(self.twice(F.relu(self.twice(x))))
        return self.tied(self.one(x)) + self.other(x)


class InPlace(nn.Module):
    """Operations that write into their argument, which others read afterwards by its old name."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(F.relu(x, inplace=True))
        y += x
        y.mul_(0.5)
        F.hardtanh_(y, -0.2, 0.3)
        F.dropout(y, 0.5, self.training, inplace=True)
        return y


class TokenNorm(nn.Module):
    """A norm over tokens after a linear layer whose outputs are as many."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 24), nn.BatchNorm1d(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.flatten(1, 2)))


class TwoReaders(nn.Module):
    """A convolution that is read with its norm and without."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv_bn(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + F.relu6(self.norm(x))


NETWORKS = {
    "conv-bn-relu": nn.Sequential(*conv_bn(3, 6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)),
    "depthwise": nn.Sequential(*conv_bn(3, 6), nn.ReLU6(), *conv_bn(6, 6, groups=6), nn.ReLU6(), *conv_bn(6, 4, groups=2)),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(192, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 5)),
    "conv1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)),
    "same": nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.BatchNorm2d(4)),
    "mini": Mini(),
    "shared": Shared(),
    "in-place": InPlace(),
    "token norm": TokenNorm(),
    "two readers": TwoReaders(),
    "no statistics": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()),
    "no gain": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "dropout": nn.Sequential(nn.Dropout2d(), nn.Conv2d(3, 4, 3), nn.Dropout(inplace=True), nn.Hardtanh()),
}
# norms that cannot go into the layer before them
KEPT = {"shared": 2, "token norm": 1, "two readers": 1, "no statistics": 1}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_computes_what_the_network_does(name):
    module = ready(NETWORKS[name])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = network_of(module, SHAPE)
    # of another batch size than the one that was traced
    x = images(5, *SHAPE)
    with torch.no_grad():
        wanted = module(x.clone())
        assert wanted.abs().max() > 0.1
        assert torch.allclose(network.module(x), wanted, atol=1e-5)
    targets = [node.target for node in network.module.graph.nodes]
    assert targets.count(aten.batch_norm.default) == KEPT.get(name, 0)
    assert not {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default} & set(targets)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_the_graph_has_its_own_parameters():
    module = ready(Mini()).requires_grad_(False)
    network = network_of(module, (3, 16, 16))
    theirs = {p.data_ptr() for p in module.parameters()}
    assert all(p.data_ptr() not in theirs and p.requires_grad for p in network.module.parameters())


def test_layers_and_points_of_a_network():
    network = mini()
    assert [(x.name, x.source, x.point, x.params, x.channels, x.macs) for x in network.layers] == [
        ("stem.0", "x", "stem_2_hardtanh", 216, 8, 216 * 64),
        ("depthwise.0", "stem_2_hardtanh", "depthwise_2_relu", 72, 8, 72 * 64),
        ("pointwise.0", "depthwise_2_relu", "pointwise_0", 64, 8, 64 * 64),
        ("head", "adaptive_avg_pool2d", "head", 40, 5, 40),
    ]
    # what kernels read and put out: not the inside of a fused layer, not a moved value again, and not the logits
    assert network.points == ("x", "stem_2_hardtanh", "depthwise_2_relu", "pointwise_0", "relu", "adaptive_avg_pool2d")


def test_a_module_that_is_called_twice_is_two_layers():
    network = network_of(ready(Shared()), SHAPE)
    assert [x.name for x in network.layers] == ["stem.0", "twice", "twice_1", "one", "other"]
    assert len({x.node for x in network.layers}) == 5


@pytest.mark.parametrize("name", ["conv-bn-relu", "depthwise", "linear", "mini"])
def test_counts_are_those_of_the_plan(name):
    module = ready(NETWORKS[name])
    network, plan = network_of(module, SHAPE), trace(module, images(1, *SHAPE))
    planned = {layer.name: layer for layer in plan.layers if layer.op in ("conv", "linear")}
    assert [x.macs for x in network.layers] == [macs(planned[x.name]) for x in network.layers]
    assert sum(x.macs for x in network.layers) == count(plan).metrics["macs"].value
    for x in network.layers:
        layer = planned[x.name]
        assert x.params == params(layer) - layer.out_channels * (layer.bias + 2 * layer.norm)
        assert x.channels == layer.out_channels


class Windows(nn.Module):
    """Attention in windows: several rows of the batch for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Conv2d(3, 4, 1), nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1).reshape(-1, 16, 4)
        return self.out(x + self.attention(x, x, x)[0]).reshape(-1, 64, 6).mean(1)


def test_products_of_windows_are_counted_for_an_image():
    module = ready(Windows())
    network = network_of(module, SHAPE)
    assert [x.macs for x in network.layers] == [64 * weights for weights in (12, 48, 16, 24)]
    x = images(3, *SHAPE)
    assert torch.allclose(network.module(x), module(x), atol=1e-5)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else self.conv(-x)


def test_what_cannot_be_traced_is_named():
    with pytest.raises(InvalidSetting, match="Branches cannot be traced by torch.export for images of 3x8x8"):
        network_of(Branches().eval(), SHAPE)
    with pytest.raises(InvalidSetting, match="Sequential cannot be traced by torch.export for images of 3x8x8"):
        network_of(nn.Sequential(nn.Conv2d(1, 4, 3)).eval(), SHAPE)


def test_a_network_without_layers():
    with pytest.raises(InvalidSetting, match="no convolution and no linear layer"):
        plain(*pooled(nn.MaxPool2d(2), nn.ReLU()))
