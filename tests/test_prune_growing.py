"""Growing networks: masks of 0 and 1 are cuts, shares are counts, and a training ends at what the budget allows."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import blobs, images, randomize_norms
from prune_toy import chain
from torch import nn

from compress.prune.dependencies import remove
from compress.prune.depth import residual_blocks, without
from compress.prune.groups import Cut
from compress.prune.growing import ExpectedShare, Growing, Growth, growing, result
from compress.prune.history import replay
from compress.prune.pipeline import Calibration, Recipe, analysed, further
from nas.budget import Budget, check
from nas.cost.counting import count, macs
from nas.cost.trace import trace
from nas.data.augment import Augmentation
from nas.errors import InfeasibleBudget, InvalidSetting
from nas.rundir import RunDir
from nas.seeding import numpy_rng
from nas.torch_seeding import generator
from nas.training import loop
from nas.training.loop import Checkpoints, TrainConfig, train
from nas.training.objectives import classification

IMAGES = images(2, 1, 8, 8)
FULL = 50.0  # a parameter whose mask is 1, and -FULL one whose mask is 0


def conv(before, after, kernel=3, stride=1, groups=1):
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after))


class Block(nn.Module):
    """What is added is a chain of convolutions, one of them depthwise if asked for."""

    def __init__(self, channels, inner, depthwise=False):
        super().__init__()
        middle = [conv(inner, inner, groups=inner), nn.ReLU()] if depthwise else []
        self.chain = nn.Sequential(conv(channels, inner, 1 if depthwise else 3), nn.ReLU(), *middle, conv(inner, channels))

    def forward(self, x):
        return F.relu(x + self.chain(x))


class Branches(nn.Module):
    """Two convolutions side by side."""

    def __init__(self, before, after):
        super().__init__()
        self.left, self.right = conv(before, after, 1, 2), conv(before, after, 3, 2)

    def forward(self, x):
        return F.relu(torch.cat([self.left(x), self.right(x)], 1))


def net(seed=0):
    """Four residual blocks, a depthwise convolution, a concatenation, a flattened map, random weights and norms."""
    blocks = [Block(8, 12), Block(8, 12, depthwise=True), Branches(8, 6), conv(12, 16), nn.ReLU(), Block(16, 20), Block(16, 24)]
    module = nn.Sequential(conv(1, 8), nn.ReLU(), *blocks, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 3))
    rng = generator(seed, "weights")
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=1 / math.sqrt(max(1, parameter[0].numel())), generator=rng)
    return randomize_norms(module, seed)


SUBJECT = analysed(net(), IMAGES)
BLOCKS = residual_blocks(SUBJECT.module, IMAGES)


def network(steps=10, **settings):
    return Growing(SUBJECT, BLOCKS, Growth(steps, **settings))


def decided(seed, off=()):
    """A network of which random units, and the blocks `off`, are off, with the cuts that are the same."""
    found, cuts, rng = network(), [], numpy_rng(seed, "masks")
    with torch.no_grad():
        for group, units in zip(SUBJECT.groups, found.units, strict=True):
            gone = np.sort(rng.permutation(group.width)[: rng.integers(0, group.width)])
            units.fill_(FULL)[gone] = -FULL
            if len(gone):
                cuts.append(Cut(group.name, tuple(gone.tolist())))
        found.blocks.copy_(torch.tensor([-FULL if name in off else FULL for name in BLOCKS]))
    return found, cuts


def steps_of(module, limit, epochs, checkpoints=None, weight=10.0):
    config = TrainConfig(epochs, batch_size=16, lr=0.1)
    objective = growing(module, classification, limit, weight)
    return train(module, objective, blobs(), Augmentation(crop_padding=1, flip=False), config, checkpoints or Checkpoints())


# -- masks


def test_the_toy_has_what_it_is_for():
    assert BLOCKS == ("2", "3", "7", "8")
    assert [group.width for group in SUBJECT.groups] == [8, 12, 12, 6, 6, 16, 20, 24]


def test_masks_start_near_a_half_and_end_at_zero_or_one():
    found = network(steps=4, seed_share=0.25)
    assert [int((units > 0).sum()) for units in found.units] == [2, 3, 3, 2, 2, 4, 5, 6] and int((found.blocks > 0).sum()) == 1
    masks = torch.stack([found.masks(step)[0] for step in range(6)])
    on = torch.cat(list(found.units)) > 0
    assert (masks[1:5, on] > masks[:4, on]).all() and (masks[1:5, ~on] < masks[:4, ~on]).all()
    assert torch.equal(masks[4], masks[5]) and (masks[0, ~on] > 0.45).all()
    assert (masks[4, on] > 0.99).all() and (masks[4, ~on] < 0.01).all()
    betas = (masks.logit() / torch.cat(list(found.units)))[:, 1]
    torch.testing.assert_close(betas, torch.tensor([1, 100**0.25, 10, 100**0.75, 100, 100]), rtol=1e-3, atol=0)


@pytest.mark.parametrize("off", [(), BLOCKS[1:3], BLOCKS])
@pytest.mark.parametrize("seed", range(3))
def test_masks_of_zero_and_one_are_cuts(seed, off):
    found, cuts = decided(seed, off)
    cut = remove(without(found.eval().network, ()), SUBJECT.groups, cuts)
    shorter = without(cut, off).eval()
    with torch.no_grad():
        torch.testing.assert_close(found(IMAGES, 10), shorter(IMAGES), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(without(found.folded(), off).eval()(IMAGES), shorter(IMAGES), rtol=1e-4, atol=1e-5)
    assert found.removed == off


def test_whole_masks_are_the_network_in_training_too():
    found, _ = decided(0)
    with torch.no_grad():
        for units in found.units:
            units.fill_(FULL)
    whole = without(SUBJECT.module, ()).train()
    assert torch.equal(found.train()(IMAGES, 10), whole(IMAGES))
    assert torch.equal(found.network[0][1].running_mean, whole[0][1].running_mean)  # norms follow
    assert not any(part._forward_hooks for part in found.modules())


def test_a_half_of_a_block_is_half_of_what_it_adds():
    found, _ = decided(0)
    with torch.no_grad():
        for units in found.units:
            units.fill_(FULL)
        found.blocks[0] = 0.0
        module = found.eval().network
        x = module[1](module[0](IMAGES))
        expected = module[3:](0.5 * module[2](x) + 0.5 * x)
        torch.testing.assert_close(found(IMAGES, 10), expected)


def test_units_and_blocks_that_are_off_get_gradients():
    found = network(steps=10, seed_share=0.25).train()
    for step in (0, 5, 10):
        loss = F.cross_entropy(found(images(8, 1, 8, 8), step), torch.arange(8) % 3)
        for s in (*found.units, found.blocks):
            learned, counted = (torch.autograd.grad(x, s, retain_graph=True)[0] for x in (loss, found.expected_share(step)))
            assert (s < 0).any() and (counted[s < 0] > 0).all()
            assert (learned[s < 0] != 0).float().mean() > 0.6  # some units give nothing but zeros for these images


# -- shares


@pytest.mark.parametrize("off", [(), BLOCKS[:1], BLOCKS[2:], BLOCKS])
@pytest.mark.parametrize("seed", range(3))
def test_the_expected_share_of_decided_masks_is_the_counted_one(seed, off):
    found, cuts = decided(seed, off)
    cut = without(remove(SUBJECT.module, SUBJECT.groups, cuts), off)
    expected = count(trace(cut, IMAGES)).value("macs") / SUBJECT.cost.value("macs")
    assert found.expected_share(10).item() == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert found.expected_share(10).item() == pytest.approx(expected, rel=1e-5)


def test_the_expected_share_is_the_mean_over_masks():
    """Masks are independent, so the mean over networks that are drawn by them is the share of the means."""
    module = nn.Sequential(conv(1, 3), nn.ReLU(), conv(3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    subject = analysed(module, IMAGES)
    share, p = ExpectedShare(subject.widths.plan, subject.groups, ("2",)), torch.tensor([0.1, 0.6, 0.9, 0.3, 0.8, 0.7])
    draws = [torch.tensor([n >> bit & 1 for bit in range(6)]).float() for n in range(64)]
    mean = sum(float((d * p + (1 - d) * (1 - p)).prod()) * share(d[:5], d[5:]).item() for d in draws)
    assert share(p[:5], p[5:]).item() == pytest.approx(mean, rel=1e-5)


def test_layers_of_a_block_are_told_from_those_of_others_with_such_a_name():
    plan = chain(*[8] * 11).plan  # of conv0 to conv10, and a linear layer
    layers = {layer.name: macs(layer) for layer in plan.layers}
    share = ExpectedShare(plan, (), ("conv1",))(torch.ones(0), torch.zeros(1))
    assert share.item() == pytest.approx(1 - layers["conv1"] / sum(layers.values()))


# -- training


def test_training_brings_the_share_to_the_limit_and_units_come_and_go():
    limit, found = 0.1, network(steps=30, seed_share=0.5)
    seeds = torch.cat(list(found.units)).detach() > 0
    shares, losses = [found.expected_share(0).item()], []
    for progress in steps_of(found, limit, epochs=15):
        shares.append(found.expected_share(progress.step).item())
        losses.append(progress.loss)
    assert len(losses) == 45 and losses[-1] < 0.5 * losses[0]
    assert shares[0] > 1.5 * limit and shares[-1] <= 1.02 * limit
    on = torch.cat(list(found.units)) > 0
    assert (seeds & ~on).any() and (~seeds & on).any()
    decisive = torch.cat(found.masks(30)) - 0.5
    assert (decisive.abs() > 0.4).float().mean() > 0.8


def test_a_limit_that_is_kept_costs_nothing():
    found = network()
    losses = list(growing(found, classification, 0.9)(images(4, 1, 8, 8), torch.arange(4) % 3, 5))
    assert losses[0] > 0 and losses[1] == 0
    (_, excess) = growing(found, classification, share := found.expected_share(5).item() / 2, 3.0)(
        images(4, 1, 8, 8), torch.arange(4) % 3, 5
    )
    assert excess.item() == pytest.approx(3.0 * 0.5) and share < 0.5  # half of the weight in the middle, twice the limit


def test_resumed_is_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", math.inf)
    list(steps_of(whole := network(), 0.1, 3))
    with RunDir.create("train", {}, tmp_path / "run") as run:
        first = steps_of(network(), 0.1, 3, Checkpoints(run, "a"))
        assert [next(first).step for _ in range(4)] == [1, 2, 3, 4]
        resumed = network()
        assert len(list(steps_of(resumed, 0.1, 3, Checkpoints(run, "a")))) == 5
    assert all(torch.equal(t, whole.state_dict()[n]) for n, t in resumed.state_dict().items())


# -- what is left


@pytest.mark.parametrize("off", [(), BLOCKS[1:2], BLOCKS[2:]])
@pytest.mark.parametrize("budget", ["40%", "25%params"])
def test_what_is_kept_fits_the_budget(off, budget):
    found, _ = decided(1, off)
    budgets = [Budget.parse(budget).resolve(SUBJECT.cost)]
    so_far, ranking, keep = result(found, budgets, Recipe(round_to=1))
    assert so_far.history.blocks == off and ranking.scores.keys() == keep.keys() <= found.scores.keys()
    final = further(so_far, ranking, keep, Calibration())
    cost = count(trace(final.module, IMAGES))
    assert check(budgets, cost) == [] and cost.value(budgets[0].metric) > 0.95 * budgets[0].limit
    again = replay(found.folded(), final.history, IMAGES).eval()
    assert torch.equal(again(IMAGES), final.module(IMAGES))


def test_units_that_are_on_are_kept_where_the_budget_is_theirs():
    found, cuts = decided(2, off := BLOCKS[:1])
    counted = count(trace(without(remove(SUBJECT.module, SUBJECT.groups, cuts), off), IMAGES)).value("macs")
    so_far, ranking, keep = result(found, [Budget("exact", "macs", counted)], Recipe(round_to=1, least=0.01))
    assert keep == {name: int((found.scores[name] > 0).sum()) for name in keep} and len(keep) < len(SUBJECT.groups)
    final, expected = further(so_far, ranking, keep, Calibration()), found.eval()(IMAGES, 10)
    torch.testing.assert_close(final.module(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_what_is_refused():
    with pytest.raises(InfeasibleBudget, match="no cut keeps 100FLOPs"):
        result(network(), [Budget.parse("100FLOPs")], Recipe())
    for settings in ({"steps": 0}, {"steps": 5, "seed_share": 0.0}, {"steps": 5, "beta": 1.0}):
        with pytest.raises(InvalidSetting, match="use 1 step or more, a share in"):
            Growth(**settings)
    with pytest.raises(InvalidSetting, match="limit_share 50 and weight 1.0 given; use a share in"):
        growing(network(), classification, 50, 1.0)
