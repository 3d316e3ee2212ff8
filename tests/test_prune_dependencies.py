import json
from functools import partial

import pytest
import torch
import torch.nn as nn
import torchvision.models as tv
from networks import images, randomize_norms, space_for
from torch import Tensor

from compress.prune.attention import prepare
from compress.prune.cifar_resnet import CifarResNet
from compress.prune.dependencies import analyse, cut, remove
from compress.prune.groups import IN, OUT, Cut, Group, Member
from compress.prune.slices import silenced, slices
from nas.errors import InvalidSetting
from nas.torch_seeding import generator
from search_spaces.staged import DataShape


class Mixed(nn.Module):
    """What hangs channels together: a sum, a concatenation, groups, a depthwise layer, a group norm, a flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.side = nn.Conv2d(8, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide = nn.Conv2d(16, 12, 1)
        self.grouped = nn.Conv2d(12, 24, 3, padding=1, groups=3)
        self.blocks = nn.GroupNorm(6, 24)
        self.hidden, self.act = nn.Linear(24 * 4, 10), nn.PReLU(10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + torch.relu(self.depthwise(self.side(x)))
        y = torch.relu(self.wide(torch.cat([self.side(x), x], 1)))
        y = nn.functional.adaptive_avg_pool2d(torch.relu(self.blocks(self.grouped(y))), 2)
        return self.head(self.act(self.hidden(y.flatten(1))))


def of_space(name: str) -> nn.Module:
    space = space_for(name, "3MFLOPs", DataShape(3, 32, 10))
    return space.network(space.largest())


def vit() -> nn.Module:
    return tv.VisionTransformer(32, 8, 2, 3, 48, 96, num_classes=10)


NETWORKS = {
    "mixed": (Mixed, 8),
    "cifar-resnet8": (partial(CifarResNet, 8), 32),
    "space resnet": (partial(of_space, "resnet"), 32),
    "space mobilenet": (partial(of_space, "mobilenet"), 32),
    "resnet18": (partial(tv.resnet18, num_classes=10), 32),
    "resnext": (partial(tv.ResNet, tv.resnet.Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=8), 32),
    "mobilenet_v2": (partial(tv.mobilenet_v2, num_classes=10, width_mult=0.5), 32),
    "densenet": (partial(tv.DenseNet, 8, (2, 3), 16, num_classes=10), 32),
    "googlenet": (partial(tv.googlenet, num_classes=10, aux_logits=False, init_weights=False), 32),
    "vit": (vit, 32),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    make, side = NETWORKS[name]
    module = randomize_norms(make()).eval()
    for parameter in module.parameters():
        if parameter.dim() > 1 and not parameter.any():  # such as the classifier of a new vision transformer
            nn.init.normal_(parameter, generator=generator(0))
    return module, images(2, 3, side, side)


def some(group: Group, seed: int = 0) -> tuple[int, ...]:
    order = torch.randperm(group.width, generator=generator(seed, group.name))
    return tuple(sorted(order[: max(1, group.width // 3)].tolist()))


def zeroed_where_written(module: nn.Module, cuts: list[tuple[Group, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Parameters that make the units zero where they are written: these networks map zero to zero up to where it is read."""
    found: dict[str, Tensor] = {}
    for group, units in cuts:
        for member in group.members:
            for part in slices(module, member) if member.side == OUT else ():
                parameter = found.setdefault(part.name, module.get_parameter(part.name).detach().clone())
                parameter.index_fill_(part.dim, torch.tensor([i for u in units for i in member.units[u]]), 0.0)
    return found


def norms_over_channels(module: nn.Module, group: Group) -> bool:
    parts = dict(module.named_modules())
    return any(isinstance(parts.get(member.layer), nn.LayerNorm) for member in group.members)


# -- cutting is zeroing


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_cut_network_is_the_one_with_zeroed_units(name):
    module, x = build(name)
    groups = analyse(module, x[:1])
    network = prepare(module)
    whole = network(x)
    chosen = [(group, some(group)) for group in groups if not norms_over_channels(network, group)]
    smaller = remove(module, groups, [Cut(group.name, units) for group, units in chosen])
    assert len(chosen) >= 3 and sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in module.parameters())
    for zeroed in (zeroed_where_written(network, chosen), silenced(network, chosen)):
        expected = torch.func.functional_call(network, zeroed, (x,))
        assert (expected - whole).abs().max() > 1e-2 * whole.abs().max()
        torch.testing.assert_close(smaller(x), expected, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("name", ["mixed", "cifar-resnet8", "space mobilenet", "vit"])
def test_history_replays_on_a_new_source(name):
    module, x = build(name)
    history = [[], []]
    smaller = module
    for step in history:
        step += [Cut(group.name, some(group)) for group in analyse(smaller, x)[:6]]
        smaller = cut(smaller, step, x)
    stored = json.loads(json.dumps([[c.to_json() for c in step] for step in history]))
    replayed, _ = build(name)
    for step in stored:
        replayed = cut(replayed, [Cut.from_json(c) for c in step], x)
    replayed.load_state_dict(smaller.state_dict())
    torch.testing.assert_close(replayed(x), smaller(x), rtol=0, atol=0)


def test_all_units_but_one_can_go():
    module, x = build("mixed")
    groups = analyse(module, x)
    smaller = remove(module, groups, [Cut(group.name, tuple(range(1, group.width))) for group in groups])
    assert smaller(x).shape == (2, 4)
    # what was one group of a convolution and two of a norm is now cut by channels and by groups of the norm
    assert {group.name: group.width for group in analyse(smaller, x)} == {"wide": 4, "grouped": 2}


# -- what a group is


def test_members_and_units():
    module, x = build("mixed")
    groups = {group.name: group for group in analyse(module, x)}
    assert {name: group.width for name, group in groups.items()} == {"stem": 8, "wide": 3, "hidden": 10}
    # the layer that is run twice reads and writes the same channels
    stem = {(m.layer, m.side): m.units for m in groups["stem"].members}
    assert set(stem) == {(x, OUT) for x in ("stem", "norm", "side", "depthwise")} | {("side", IN), ("wide", IN)}
    assert stem["depthwise", OUT] == tuple((u,) for u in range(8)) and stem["wide", IN] == tuple((u, 8 + u) for u in range(8))
    wide = {(m.layer, m.side): m.units for m in groups["wide"].members}
    # three units: the groups of `grouped`, each two groups of the norm, four pixels a channel
    assert wide["wide", OUT] == tuple(tuple(range(4 * u, 4 * u + 4)) for u in range(3))
    assert wide["grouped", OUT] == wide["blocks", OUT] == tuple(tuple(range(8 * u, 8 * u + 8)) for u in range(3))
    assert wide["hidden", IN] == tuple(tuple(range(32 * u, 32 * u + 32)) for u in range(3))
    assert [(m.layer, m.side) for m in groups["wide"].members] == [
        *(("wide", OUT), ("grouped", OUT), ("blocks", OUT), ("hidden", IN))
    ]
    single = tuple((u,) for u in range(10))
    assert groups["hidden"] == Group(
        "hidden", 10, (Member("hidden", OUT, single), Member("act", OUT, single), Member("head", IN, single))
    )


def test_order_is_that_of_execution():
    module, x = build("resnet18")
    assert [group.name for group in analyse(module, x)][:5] == [
        "conv1",
        "layer1.0.conv1",
        "layer1.1.conv1",
        "layer2.0.conv1",
        "layer2.0.conv2",
    ]


def test_zeros_of_shortcuts_stay_where_they_are():
    module, x = build("cifar-resnet8")
    groups = {group.name: group for group in analyse(module, x)}
    assert {name: group.width for name, group in groups.items()} == {
        "conv1": 16,
        "layer1.0.conv1": 16,
        "layer2.0.conv1": 32,
        "layer3.0.conv1": 64,
    }
    widest = next(m for m in groups["conv1"].members if m.layer == "linear")
    assert widest.units == tuple((24 + u,) for u in range(16))


@pytest.mark.parametrize("name", ["mixed", "resnet18", "vit"])
def test_neither_input_nor_output_is_cut(name):
    module, x = build(name)
    ends = {"conv1", "conv_proj", "stem"}, {"fc", "heads.head", "head"}
    members = {(member.layer, member.side) for group in analyse(module, x) for member in group.members}
    assert not {(layer, IN) for layer in ends[0]} & members and not {(layer, OUT) for layer in ends[1]} & members
    assert len({(layer, OUT) for layer in ends[0]} & members) == len({(layer, IN) for layer in ends[1]} & members) == 1


# -- what is left alone


def test_module_is_left_as_it_is():
    module, x = build("mixed")
    module.train()
    module.norm.eval()
    module.stem.weight.requires_grad = False
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    groups = analyse(module, x)
    smaller = remove(module, groups, [Cut("stem", (1,))])
    assert module.training and not module.norm.training and smaller.training and not smaller.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert [p.requires_grad for p in smaller.parameters()] == [p.requires_grad for p in module.parameters()]
    assert all(p.grad is None for p in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert module.norm.num_features == 8 and smaller.norm.num_features == 7


def test_groups_do_not_depend_on_weights():
    assert analyse(*build("space mobilenet")) == analyse(*build("space mobilenet"))
    module, x = build("mixed")
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    assert analyse(module, x) == analyse(*build("mixed"))


class Shuffled(nn.Module):
    """What no graph tells: channels that change places, and a width that is written into the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        x = torch.relu(self.b(x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)))
        x = self.d(torch.relu(self.c(x)))
        return self.head(x.view(len(x), 6, -1).mean(2))


def test_what_cannot_be_proven_is_no_group():
    assert [group.name for group in analyse(Shuffled(), images(1, 3, 4, 4))] == ["b", "c"]


# -- bad input


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Cut("stern", (0,)), "there is no group 'stern'.*of 3 groups the first are: stem, wide, hidden"),
        (Cut("stem", (7, 8, -1)), r"'stem' has no units \[-1, 8\]; its units are 0 to 7"),
        (Cut("wide", (0, 1, 2)), "cutting 3 of the 3 units of group 'wide' would leave 0"),
    ],
)
def test_bad_cuts(step, message):
    module, x = build("mixed")
    with pytest.raises(InvalidSetting, match=message):
        cut(module, [step], x)


def test_modules_that_cannot_be_run():
    with pytest.raises(InvalidSetting, match=r"Mixed cannot be run on an input of shape \(1, 2, 8, 8\) .*; check the shape"):
        analyse(Mixed(), images(1, 2, 8, 8))
