"""The groups of a cut network, told from the cuts alone, and several steps of cutting as one."""

import pytest
import torch
import torchvision.models as tv
from networks import images, randomize_norms
from torch import nn

from compress.prune.attention import prepare
from compress.prune.cifar_resnet import CifarResNet
from compress.prune.dependencies import analyse, remove
from compress.prune.groups import IN, OUT, Cut, Group, Member, gone, groups_after, joined, units_left
from nas.torch_seeding import generator


def plain():
    """A channel of the second convolution is four inputs of the linear layer."""
    return nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 10, 3, 2, padding=1)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(40, 9), nn.PReLU(9), nn.Linear(9, 5)),
    )


NETWORKS = {
    "plain": plain,
    "cifar-resnet8": lambda: CifarResNet(8),
    "vit": lambda: tv.VisionTransformer(8, 4, 2, 4, 24, 40, num_classes=5),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    module, x = prepare(randomize_norms(NETWORKS[request.param]()).eval()), images(2, 3, 8, 8)
    for parameter in module.parameters():
        if not parameter.any():  # such as the classifier of a new vision transformer
            nn.init.normal_(parameter, generator=generator(0))
    return module, x, analyse(module, x)


def some_cuts(groups: tuple[Group, ...], seed: int) -> tuple[Cut, ...]:
    """About a quarter of the units of each group, drawn at random; two are left at least, for one alone is no group."""
    found = []
    for group in groups:
        order = torch.randperm(group.width, generator=generator(seed, group.name)).tolist()
        found.append(Cut(group.name, tuple(order[: min(-(-group.width // 4), group.width - 2)])))
    return tuple(found)


def widths(groups: tuple[Group, ...]) -> dict[str, int]:
    return {group.name: group.width for group in groups}


# -- networks


@pytest.mark.parametrize("seed", range(2))
def test_groups_after_a_cut_are_those_of_the_cut_network(network, seed):
    module, x, groups = network
    cuts = some_cuts(groups, seed)
    after = groups_after(groups, cuts)
    assert len(after) >= 3 and after == analyse(remove(module, groups, cuts), x)
    assert widths(after) == {name: len(left) for name, left in units_left(widths(groups), cuts).items()}


def test_groups_that_are_not_cut_follow_those_that_are(network):
    module, x, groups = network
    cuts = some_cuts(groups[:1], 0)
    assert groups_after(groups, cuts) == analyse(remove(module, groups, cuts), x)
    assert groups_after(groups, ()) == groups


@torch.no_grad()
def test_joined_steps_are_the_steps(network):
    module, x, groups = network
    steps, left, smaller = [], groups, module
    for seed in range(3):
        steps.append(some_cuts(left, seed))
        smaller = remove(smaller, left, steps[-1])
        left = groups_after(left, steps[-1])
    once = joined(widths(groups), steps)
    assert len({cut.group for cut in once}) == len(once) and groups_after(groups, once) == left
    at_once = remove(module, groups, once)
    assert at_once.state_dict().keys() == smaller.state_dict().keys()
    assert all(torch.equal(at_once.state_dict()[name], tensor) for name, tensor in smaller.state_dict().items())
    assert torch.equal(at_once(x), smaller(x)) and not torch.allclose(module(x), smaller(x))


# -- values


def test_units_are_counted_anew():
    own = Member("a", OUT, ((0,), (1,), (2,))), Member("b", IN, ((0, 5), (1, 6), (2, 7)))
    other = Member("c", OUT, ((0,), (1,))), Member("b", IN, ((3,), (4,)))
    groups = Group("a", 3, own), Group("c", 2, other)
    cuts = (Cut("a", (2,)), Cut("a", (0,)))
    assert gone(groups, cuts) == {("a", OUT): [0, 2], ("b", IN): [0, 2, 5, 7]}
    # indices 1, 3, 4 and 6 of b are left
    first = Group("a", 1, (Member("a", OUT, ((0,),)), Member("b", IN, ((0, 3),))))
    assert groups_after(groups, cuts) == (first, Group("c", 2, (other[0], Member("b", IN, ((1,), (2,))))))


def test_units_of_later_steps_are_those_that_were_left():
    assert units_left({"a": 5, "b": 2}, [Cut("a", (3, 0))]) == {"a": [1, 2, 4], "b": [0, 1]}
    steps = [(Cut("a", (3, 0)),), (Cut("a", (1,)), Cut("b", (1,))), ()]
    assert joined({"a": 5, "b": 2, "c": 4}, steps) == (Cut("a", (0, 2, 3)), Cut("b", (1,)))
