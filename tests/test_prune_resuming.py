"""Running a network again with other weights of some layers gives what running it whole gives, and runs less."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from networks import images, randomize_norms
from torch import nn
from torch.overrides import TorchFunctionMode

from compress.prune.cifar_resnet import CifarResNet
from compress.prune.distortion import FEWEST, MEMORY, TIMED, Point, curves, divided
from compress.prune.groups import IN, OUT, Group, Member
from compress.prune.resuming import resumable
from compress.prune.slices import called
from nas.torch_seeding import generator
from nas.training.calibration import batch_statistics


class InPlace(nn.Module):
    """Changes in place what its layers gave."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.a(x)
        x += 1.0
        x = self.b(x).relu_()
        x *= 0.5
        return self.head((self.b(x) + self.c(x)).mean((2, 3)))


NETWORKS = {
    "in place": InPlace,
    "resnet": lambda: CifarResNet(8),
    "vit": lambda: tv.VisionTransformer(16, 4, 2, 2, 12, 24, num_classes=5),
    "densenet": lambda: tv.DenseNet(8, (2, 2), 8, num_classes=5),
}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_what_is_kept_changes_nothing(name):
    torch.manual_seed(0)
    module, x = randomize_norms(NETWORKS[name]()).eval(), images(3, 3, 16, 16)
    own = dict(module.named_parameters())
    layers = [n for n, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear) and f"{n}.weight" in own]
    rng = generator(0)
    expected = [called(module, {f"{n}.weight": torch.randn(own[f"{n}.weight"].shape, generator=rng)}, x) for n in layers]
    rng = generator(0)
    before = {n: part.forward for n, part in module.named_modules()}
    with resumable(module) as make:
        run = make(x)
        found = [run({f"{n}.weight": torch.randn(own[f"{n}.weight"].shape, generator=rng)}) for n in layers]
        again = [run({}), run({})]
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert torch.equal(again[0], module(x)) and torch.equal(again[1], again[0])
    assert all(part.forward == before[n] and "forward" not in part.__dict__ for n, part in module.named_modules())


@torch.no_grad()
def test_only_what_lies_behind_is_run():
    module, x = CifarResNet(20).eval(), images(2, 3, 32, 32)
    layer = "layer2.1.conv2"
    with resumable(module) as make, batch_statistics(module):
        run = make(x)
        new = {f"{layer}.weight": torch.zeros_like(module.get_parameter(f"{layer}.weight"))}
        counts = []
        for _ in range(2):
            with Convolutions() as ran:
                run(new)
            counts.append(ran.number)
    # 19 convolutions, of which ten lie before that layer
    assert counts == [19, 9]


@torch.no_grad()
def test_batches_are_run_in_turns():
    module = CifarResNet(8).eval()
    batches = [images(2, 3, 16, 16, seed=n) for n in range(2)]
    new = [{f"{layer}.weight": 0.5 * module.get_parameter(f"{layer}.weight")} for layer in ("layer1.0.conv2", "layer3.0.conv1")]
    expected = [called(module, parameters, x) for parameters in new for x in batches]
    with resumable(module) as make:
        runs = [make(x) for x in batches]
        found = [run(parameters) for parameters in new for run in runs]
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


class Convolutions(TorchFunctionMode):
    number = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.number += func is F.conv2d
        return func(*args, **(kwargs or {}))


def test_a_point_is_settled_when_its_error_is_small():
    assert not (Point() + torch.ones(FEWEST - 1)).settled and (Point() + torch.ones(FEWEST)).settled
    wide = torch.zeros(FEWEST)
    wide[0] = 1.0
    assert not (Point() + wide).settled
    point = Point() + torch.tensor([1.0, 2.0]) + torch.tensor([6.0])
    assert (point.images, point.mean) == (3, 3.0)


@torch.no_grad()
def test_settled_points_take_no_further_images():
    torch.manual_seed(0)
    units = tuple((u,) for u in range(4))
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    group = Group("0", 4, (Member("0", OUT, units), Member("1", IN, units)))
    same = images(1, 3, 2, 2).expand(FEWEST, 3, 2, 2)
    wild = torch.cat([torch.zeros_like(same[1:]), 100 * same[:1]])
    ran = []
    net[1].register_forward_pre_hook(lambda module, given: ran.append(len(given[0])))

    def cut_off(group, kept):
        return {"1.weight": 0.5 * net[1].weight}

    assert curves(net, [group], {"0": (2, 4)}, [same] * 3, cut_off)["0"][2] > 0
    # some images for the clock, the whole network, and the cut one: further batches are not touched
    assert ran == [TIMED, FEWEST, FEWEST]
    ran.clear()
    curves(net, [group], {"0": (2, 4)}, [wild] * 3, cut_off)
    assert ran == [TIMED, *[FEWEST] * 6]


def test_batches_fit_into_memory():
    batch = torch.zeros(128, 1)
    assert [len(x) for x in divided([batch], MEMORY / 200)] == [128]
    assert [len(x) for x in divided([batch, batch], MEMORY / 64)] == [64] * 4
    assert [len(x) for x in divided([batch], MEMORY)] == [32] * 4
    assert [len(x) for x in divided([batch[:40]], 2 * MEMORY)] == [40]
