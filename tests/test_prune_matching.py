"""Features of a cut network beside the original's: where both have them, and channel by channel."""

from __future__ import annotations

import pytest
import torch
from networks import images, randomize_norms
from torch import nn
from torchvision.models import resnet18
from torchvision.models.vision_transformer import VisionTransformer

from compress.prune.cifar_resnet import CifarResNet
from compress.prune.dependencies import analyse, cut
from compress.prune.groups import Cut
from compress.prune.history import History, replay
from compress.prune.matching import places
from compress.prune.pipeline import example_of
from compress.prune.slices import assign, silenced
from nas.training.features import Place, distance, matched, noting
from nas.training.objectives import classification, distillation

EXAMPLE = example_of((3, 32, 32))


def half_of_all(module: nn.Module) -> tuple[Cut, ...]:
    """Every second unit of every group."""
    return tuple(Cut(group.name, tuple(range(0, group.width, 2))) for group in analyse(module, EXAMPLE))


def preactivated() -> nn.Module:
    """A stem, a block that begins with its norm, and a classifier."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv1, self.conv2 = (
                nn.BatchNorm2d(8),
                nn.Conv2d(8, 12, 3, padding=1),
                nn.Conv2d(12, 8, 3, padding=1),
            )

        def forward(self, x):
            return x + self.conv2(self.conv1(self.norm(x).relu()))

    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def depthwise() -> nn.Module:
    """A stem, blocks that begin with a convolution of each channel by itself, and a classifier."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.conv1, self.conv2 = (
                nn.Conv2d(8, 8, 3, padding=1, groups=8),
                nn.Conv2d(8, 12, 1),
                nn.Conv2d(12, 8, 1),
            )

        def forward(self, x):
            return x + self.conv2(self.conv1(self.each(x)).relu())

    return nn.Sequential(nn.Conv2d(3, 8, 3), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


BUILT = {"resnet18": resnet18, "cifar": lambda: CifarResNet(14), "preactivated": preactivated, "depthwise": depthwise}


@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT)
def test_features_are_those_of_the_original_whose_other_channels_nothing_reads(build):
    torch.manual_seed(0)
    original = randomize_norms(build()).eval()
    history = History((), half_of_all(original))
    student = cut(original, history.cuts, EXAMPLE).eval()
    groups = {group.name: group for group in analyse(original, EXAMPLE)}
    assign(original, silenced(original, [(groups[c.group], c.units) for c in history.cuts]))
    found = places(original, student, EXAMPLE, history)
    x, parts = images(2, 3, 32, 32), [place.part for place in found]
    with torch.no_grad(), noting(original, parts) as theirs, noting(student, parts) as mine:
        original(x), student(x)
    assert len(found) >= 2
    for place in found:
        whole = theirs[place.part]
        kept = whole if place.kept is None else whole[:, list(place.kept)]
        torch.testing.assert_close(mine[place.part], kept, rtol=1e-3, atol=1e-4)
    assert float(distance(mine, theirs, found)) < 1e-8


def test_blocks_that_are_gone_are_not_compared():
    original = CifarResNet(14)
    history = History(("layer1.1",))
    student = replay(original, history, EXAMPLE)
    found = [place.part for place in places(original, student, EXAMPLE, history)]
    assert "layer1.0" in found and "layer1.1" not in found


def test_channels_of_tokens_are_their_last_dimension():
    original = VisionTransformer(32, 16, 2, 4, 32, 64, num_classes=3)
    history = History((), half_of_all(original))
    student = replay(original, history, EXAMPLE)
    found = places(original, student, EXAMPLE, history)
    assert [place.part for place in found] == ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"]
    assert [len(place.kept) for place in found] == 2 * [student.encoder.ln.weight.numel()] != [32, 32]


def test_a_network_without_residual_blocks_has_no_places():
    original = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    history = History((), (Cut("0", (1, 2)),))
    assert places(original, replay(original, history, EXAMPLE), EXAMPLE, history) == ()


def test_the_loss_is_the_plain_one_and_the_weighted_distance():
    torch.manual_seed(0)
    teacher, student = randomize_norms(CifarResNet(8)).eval(), randomize_norms(CifarResNet(8), seed=1).eval()
    x, labels = images(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    spots = (Place("layer1.0"), Place("layer3.0"))
    plain = distillation(student, teacher)
    with matched(plain, student, teacher, spots, weight=2.0) as objective:
        (loss,) = objective(x, labels, 0)
    (without_features,) = plain(x, labels, 0)
    with torch.no_grad():
        mine, theirs = stages(student, x), stages(teacher, x)
        ratios = [((mine[k] - theirs[k]) ** 2).sum() / (theirs[k] ** 2).sum() for k in (0, 2)]
    torch.testing.assert_close(loss - without_features, 2.0 * sum(ratios) / 2)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters()) and student.layer3[0].conv2.weight.grad.abs().sum() > 0


def stages(network, x):
    first = network.layer1(network.relu(network.bn1(network.conv1(x))))
    second = network.layer2(first)
    return first, second, network.layer3(second)


@pytest.mark.parametrize(("shape", "dim"), [((2, 4, 3, 3), 1), ((2, 4), 1), ((2, 5, 4), 2)], ids=["maps", "features", "tokens"])
def test_the_kept_channels_of_the_teacher_are_compared(shape, dim):
    whole = images(*shape)
    mine = whole.index_select(dim, torch.tensor([1, 3])) + 1
    found = distance({"block": mine}, {"block": whole}, (Place("block", (1, 3)),))
    torch.testing.assert_close(found, mine.numel() / ((mine - 1) ** 2).sum())


def test_hooks_go_with_the_context():
    network = CifarResNet(8)
    with matched(classification(network), network, network, (Place("layer1.0"),), 1.0):
        assert network.layer1[0]._forward_hooks
    assert not network.layer1[0]._forward_hooks
