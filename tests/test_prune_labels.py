"""Channels are followed through what networks do to them: every group that is found cuts as zeroing does, and what was asked
for is found."""

import copy

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomize_norms
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from compress.prune.dependencies import analyse, remove
from compress.prune.groups import IN, OUT, Cut
from compress.prune.labels import FIXED, FREE, Labels
from compress.prune.pipeline import analysed
from compress.prune.slices import called, silenced
from nas.cost.counting import count
from nas.cost.trace import trace
from nas.errors import InvalidSetting
from nas.torch_seeding import generator


def conv(i, o, k=3, **kwargs):
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **kwargs), nn.BatchNorm2d(o), nn.ReLU())


def head(c, extra=()):
    return nn.Sequential(*extra, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 5))


class C2f(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.stem, self.cv1 = how, conv(3, 8), conv(8, 16, 1)
        self.m, self.cv2, self.head = nn.ModuleList(conv(8, 8) for _ in range(2)), conv(32, 12, 1), head(12)

    def forward(self, x):
        y = list(self.how(self.cv1(self.stem(x))))
        for m in self.m:
            y.append(y[-1] + m(y[-1]))
        return self.head(self.cv2(torch.cat(y, 1)))


def by_slices(x):
    half = x.shape[1] // 2
    return x[:, :half], x[:, half:]


def by_sizes(x):
    return x.split([x.shape[1] // 2, x.shape[1] - x.shape[1] // 2], 1)


class Shuffled(nn.Module):
    """Grouped convolutions around a channel shuffle (ShuffleNet v1)."""

    def __init__(self):
        super().__init__()
        self.stem, self.c1, self.dw = conv(3, 16), conv(16, 8, 1, groups=2), conv(8, 8, groups=8)
        self.c2, self.head = conv(8, 16, 1, groups=2), head(16)

    def forward(self, x):
        x = self.stem(x)
        y = self.c1(x)
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x + self.c2(self.dw(y)))


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Conv2d(3, 8, 3), FrozenBatchNorm2d(8), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 12, 1)
        self.register_buffer("scale", torch.rand(12, 1, 1) + 0.5)
        self.register_buffer("blur", torch.rand(1, 1, 3, 3).repeat(12, 1, 1, 1))
        self.map, self.head = nn.Parameter(torch.rand(1, 12, 4, 6)), head(12)

    def forward(self, x):
        x = self.b(self.norm(self.a(x)).relu()).mul(self.scale)
        x = F.adaptive_avg_pool2d(F.conv2d(x, self.blur, groups=x.shape[1]), (4, 6)) + self.map
        return self.head(self.c(x).relu())


class Standardized(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class Split(nn.Module):
    """Attention over two branches (ResNeSt)."""

    def __init__(self):
        super().__init__()
        self.c, self.f1, self.f2, self.head = conv(3, 16), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 16, 1), head(8)

    def forward(self, x):
        x = self.c(x)
        n, c, h, w = x.shape
        pooled = sum(x.split(c // 2, 1)).mean((2, 3), keepdim=True)
        gate = self.f2(self.f1(pooled).relu()).view(n, 2, c // 2, 1, 1).softmax(1)
        return self.head((gate * x.view(n, 2, c // 2, h, w)).sum(1))


class Gated(nn.Module):
    """Gated linear units, negated copies, the larger of pairs, a map of one channel that all are scaled by."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.spot, self.head = conv(3, 12), conv(6, 6), conv(12, 10), nn.Conv2d(5, 1, 1), head(5)

    def forward(self, x):
        x = self.b(F.glu(self.a(x), 1))
        x = self.c(torch.cat([x, -x], 1))
        n, c, h, w = x.shape
        x = x.view(n, c // 2, 2, h, w).amax(2)
        return self.head(x * self.spot(x).sigmoid())


def unet():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.up, self.c = conv(3, 8), conv(8, 12), nn.ConvTranspose2d(12, 8, 2, 2), conv(16, 10)
            self.act, self.head = nn.PReLU(10), head(10)

        def forward(self, x):
            a = self.a(x)
            return self.head(self.act(self.c(torch.cat([self.up(self.b(F.max_pool2d(a, 2))), a], 1))))

    return Net()


NETWORKS = {
    "chunk": (lambda: C2f(lambda x: x.chunk(2, 1)), {"stem.0": 8, "cv1.0": 8, "m.0.0": None, "cv2.0": 12}),
    "slices": (lambda: C2f(by_slices), {"cv1.0": 8, "cv2.0": 12}),
    "sizes": (lambda: C2f(by_sizes), {"cv1.0": 8, "cv2.0": 12}),
    "shuffle": (Shuffled, {"stem.0": 8, "c1.0": 2}),
    "buffers": (Frozen, {"a": 8, "b": 12, "c": 12}),
    "standardized": (lambda: nn.Sequential(Standardized(3, 8, 3), nn.ReLU(), Standardized(8, 6, 3), head(6)), {"0": 8, "2": 6}),
    "split attention": (Split, {"c.0": 8, "f1": 6}),
    "gates": (Gated, {"a.0": 6, "b.0": 6, "c.0": 5}),
    "transposed": (unet, {"a.0": 8, "b.0": 12, "up": 8, "c.0": 10}),
    "pixels": (
        lambda: nn.Sequential(conv(3, 32), nn.PixelShuffle(2), conv(8, 8), nn.PixelUnshuffle(2), conv(32, 6), head(6)),
        {"0.0": 8, "2.0": 8, "4.0": 6},
    ),
    "plain norms": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8, affine=False),
            nn.Conv2d(8, 6, 3),
            nn.InstanceNorm2d(6),
            nn.Conv2d(6, 7, 3),
            nn.InstanceNorm2d(7, affine=True),
            head(7),
        ),
        {"0": 8, "2": 6, "4": 7},
    ),
    "channels last": (
        lambda: nn.Sequential(conv(3, 8), conv(8, 6), head(6)).to(memory_format=torch.channels_last),
        {"0.0": 8, "1.0": 6},
    ),
    "volumes": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (3, 1)),
            nn.Conv3d(3, 8, (1, 3, 3)),
            nn.BatchNorm3d(8),
            nn.ReLU(),
            nn.Conv3d(8, 6, 1),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        ),
        {"1": 8, "4": 6},
    ),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    make, expected = NETWORKS[request.param]
    torch.manual_seed(0)
    return randomize_norms(make()).eval(), images(2, 3, 16, 16), expected


def drawn(groups, seed=0):
    """Another share of each group."""
    cuts = []
    for group in groups:
        rng = generator(seed, group.name)
        number = int(torch.randint(1, max(2, group.width // group.multiple_of), (1,), generator=rng)) * group.multiple_of
        if number < group.width:
            cuts.append(Cut(group.name, tuple(sorted(torch.randperm(group.width, generator=rng)[:number].tolist()))))
    return cuts


@torch.no_grad()
def test_what_can_be_cut_is_found_and_cut_as_zeroing_does(network):
    module, x, expected = network
    subject = analysed(module, x)
    widths = {group.name: group.width for group in subject.groups}
    assert {name: widths.get(name) for name in expected} == expected
    named = {group.name: group for group in subject.groups}
    for seed in range(3):
        cuts = drawn(subject.groups, seed)
        smaller = remove(subject.module, subject.groups, cuts).eval()
        wanted = called(subject.module, silenced(subject.module, [(named[c.group], c.units) for c in cuts]), x)
        torch.testing.assert_close(smaller(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
        keep = {name: width - sum(len(c.units) for c in cuts if c.group == name) for name, width in widths.items()}
        planned = count(subject.widths.plan_with(keep), ["macs", "params"]).metrics
        traced = count(trace(smaller, x[:1]), ["macs", "params"]).metrics
        assert {name: m.value for name, m in planned.items()} == {name: m.value for name, m in traced.items()}


class Held(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.a, self.head, self.run = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), forward
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.run(self, self.a(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda net, x: F.conv2d(x, net.kernel), "held|a convolution with weights that are no layer's"),
        (lambda net, x: x.reshape(len(x), 8, 14, 14), "a: the number of channels is written into the forward"),
        (lambda net, x: x * net.a.weight.mean(), "a, whose weights are computed with outside of the layer"),
        (lambda net, x: torch.fft.fft2(x).real, "operation _fft_"),
    ],
)
def test_what_holds_the_channels_is_named(forward, message):
    with pytest.raises(InvalidSetting, match=rf"nothing of Held can be cut; what holds its channels: .*({message})"):
        analysed(Held(forward).eval(), images(2, 3, 16, 16))


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: F.local_response_norm(x, 3),
        lambda net, x: F.normalize(x, dim=1),
        lambda net, x: x / x.norm(dim=1, keepdim=True),
        lambda net, x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
        lambda net, x: x @ x.transpose(-1, -2) @ x,
        lambda net, x: torch.einsum("bchw,bdhw->bcd", x, x)[..., None],
    ],
)
def test_norms_by_hand_and_products_end(forward):
    # a cut or none, but always an answer; every group is proven
    assert {group.name for group in analyse(Held(forward).eval(), images(2, 3, 16, 16))} <= {"a"}


def test_a_layer_norm_over_a_channel_and_its_places():
    net = nn.Sequential(
        conv(3, 8), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 6, 1), nn.LayerNorm([6, 1, 1]), nn.Flatten(), nn.Linear(6, 5)
    )
    groups = {group.name: group for group in analyse(net.eval(), images(2, 3, 16, 16))}
    assert {(m.layer, m.side) for m in groups["2"].members} == {("2", OUT), ("3", OUT), ("5", IN)}
    smaller = remove(net, list(groups.values()), [Cut("2", (0, 4))])
    assert smaller[3].normalized_shape == (4, 1, 1) and smaller(images(2, 3, 16, 16)).shape == (2, 5)


def test_halves_of_a_chunk_are_one_unit():
    groups = {group.name: group for group in analyse(C2f(lambda x: x.chunk(2, 1)).eval(), images(2, 3, 16, 16))}
    first = next(m for m in groups["cv1.0"].members if (m.layer, m.side) == ("cv1.0", OUT))
    assert first.units == tuple((u, 8 + u) for u in range(8))


def test_an_alias_is_restored():
    net = nn.Sequential(conv(3, 8), head(8)).eval()
    net[0].add_module("3", nn.Identity())
    net.alias = None
    net[1].register_module("0", nn.Sequential(nn.AdaptiveAvgPool2d(1)))
    net[0][3].alias = net[0][0]
    before, weight = copy.deepcopy(net.state_dict()), net[0][0].weight
    assert [group.name for group in analyse(net, images(1, 3, 8, 8))] == ["0.0"]
    zeros = {"0.0.weight": torch.zeros_like(weight)}
    assert not torch.equal(called(net, zeros, images(1, 3, 8, 8)), net(images(1, 3, 8, 8)))
    assert net[0][0].weight is weight and all(torch.equal(before[name], t) for name, t in net.state_dict().items())


# -- labels


def test_labels_join_and_stay_small():
    labels = Labels()
    a, b = labels.new(4), labels.new(4)
    wide = labels.joined([a.view(1, 4, 1, 1).expand(2, 4, 5, 5), b.view(1, 4, 1, 1).expand(2, 4, 5, 5)], (2, 4, 5, 5))
    assert wide.stride() == (0, 1, 0, 0) and torch.equal(labels.roots(a), labels.roots(b))
    assert len(set(labels.roots(a).tolist())) == 4
    labels.fix(a[1:2])
    assert (labels.roots(b) == FIXED).tolist() == [False, True, False, False]
    assert torch.equal(labels.joined([torch.tensor(FREE).expand(4), a], (4,)), labels.roots(a))
    # a map of one channel is no channel's
    gate = labels.new(1).view(1, 1, 1, 1).expand(2, 1, 5, 5)
    assert torch.equal(labels.joined([wide, gate], (2, 4, 5, 5)), wide) and len(set(labels.roots(a).tolist())) == 4
    labels.grouped(wide, [1])
    assert set(labels.roots(b).tolist()) == {FIXED}
