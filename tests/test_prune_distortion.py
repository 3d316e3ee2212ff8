import pytest
import torch
from networks import images, randomize_norms
from torch import Tensor, nn

from compress.prune.cifar_resnet import CifarResNet
from compress.prune.depth import without
from compress.prune.distortion import POINTS, between, curves, divergences
from compress.prune.groups import IN, OUT, Group, Member
from compress.prune.slices import silenced

WIDTH = 6
UNITS = tuple((u,) for u in range(WIDTH))
GROUP = Group("0", WIDTH, (Member("0", OUT, UNITS), Member("1", OUT, UNITS), Member("3", IN, UNITS)))
OPTIONS, ORDER = {"0": tuple(range(1, WIDTH + 1))}, {"0": (4, 0, 3, 5, 1, 2)}


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, WIDTH, 3), nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.Conv2d(WIDTH, 4, 1), nn.Flatten(2)
    return randomize_norms(nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten())).eval()


@pytest.fixture(scope="module")
def batches():
    return [images(n, 3, 5, 5, seed=n) for n in (7, 4)]


def silencing(module, order):
    return lambda group, kept: silenced(module, [(group, order[group.name][: group.width - kept])])


def by_hand(network: nn.Module, x: Tensor, gone: tuple[int, ...]) -> Tensor:
    """Divergences of images (N,) without some channels, with norms on the statistics of these images."""
    conv, norm, _, last, *_ = network
    y = conv(x)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), keepdim=True, correction=0) + norm.eps).sqrt()
    y = torch.relu(y * norm.weight[:, None, None] + norm.bias[:, None, None])
    cut = y.clone()
    cut[:, list(gone)] = 0
    p, q = (last(maps).mean((2, 3)).softmax(1) for maps in (y, cut))
    return (p * (p / q).log()).sum(1)


@torch.no_grad()
def test_a_curve_is_the_divergence_of_the_outputs(network, batches):
    ((name, curve),) = curves(network, [GROUP], OPTIONS, batches, silencing(network, ORDER)).items()
    assert name == "0" and curve[WIDTH] == 0 and sorted(curve) == list(range(1, WIDTH + 1))
    for kept in (1, 2, 4, 5):  # those that are measured
        expected = torch.cat([by_hand(network, x, ORDER["0"][: WIDTH - kept]) for x in batches]).mean()
        assert curve[kept] == pytest.approx(float(expected), rel=1e-4) and curve[kept] > 1e-4


def test_what_is_cut_off_may_be_made_up_for(network, batches):
    asked = []

    def cut_off(group, kept):
        asked.append((group.name, kept))
        return {}

    ((_, curve),) = curves(network, [GROUP], OPTIONS, batches, cut_off).items()
    assert asked == [("0", kept) for kept in (1, 2, 4, 5)]  # once each, whatever the number of batches
    assert curve == {**{kept: pytest.approx(0, abs=1e-9) for kept in range(1, WIDTH)}, WIDTH: 0.0}


def test_few_points_of_many_options():
    width = 40
    units = tuple((u,) for u in range(width))
    told: list[tuple[int, int]] = []
    wide = nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    groups = [Group("0", width, (Member("0", OUT, units), Member("1", IN, units)))]
    order = {"0": tuple(range(width))}
    asked: list[int] = []

    def cut_off(group, kept):
        asked.append(kept)
        return silencing(wide, order)(group, kept)

    options = {"0": tuple(range(4, width + 1))}
    ((_, curve),) = curves(wide, groups, options, [images(2, 3, 2, 2)], cut_off, lambda *done: told.append(done)).items()
    assert len(asked) == POINTS and {4, width - 1} <= set(asked) and list(curve) == [*options["0"]]
    assert told[0] == (0, told[-1][1]) and told[-1][0] == told[-1][1]
    ((_, alone),) = curves(wide, groups, {"0": (width,)}, [images(2, 3, 2, 2)], silencing(wide, order)).items()
    assert alone == {width: 0.0}


def test_between_points_the_logarithm_is_straight():
    curve = between({2: 1e-1, 6: 1e-5}, [2, 3, 4, 6, 7, 8])
    assert curve == pytest.approx({2: 1e-1, 3: 1e-2, 4: 1e-3, 6: 1e-5, 7: 5e-6, 8: 0.0})


def test_the_module_is_left_as_it_is(network, batches):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if "num_batches" not in name}
    curves(network, [GROUP], OPTIONS, batches, silencing(network, ORDER))
    assert not any(part.training for part in network.modules()) and network[1].momentum == 0.1
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


@torch.no_grad()
def test_divergences_of_whole_networks(network, batches):
    gone = ORDER["0"][:3]
    smaller = nn.Sequential(*network)
    smaller[3] = nn.Conv2d(WIDTH, 4, 1)
    smaller[3].load_state_dict({"bias": network[3].bias, "weight": silenced(network, [(GROUP, gone)])["3.weight"]})
    found = divergences(network, {"same": network, "cut": smaller}, batches)
    assert found["same"] == 0
    assert found["cut"] == pytest.approx(float(torch.cat([by_hand(network, x, gone) for x in batches]).mean()), rel=1e-4)


def test_a_block_is_a_network_of_its_own():
    module = randomize_norms(CifarResNet(8)).eval()
    found = divergences(module, {"layer1.0": without(module, ["layer1.0"])}, [images(4, 3, 8, 8)])
    assert found["layer1.0"] > 0
