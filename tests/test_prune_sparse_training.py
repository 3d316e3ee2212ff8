"""Training with zeros in the one loop: as many as asked for, the same after a resume; and other activations."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import blobs, images, randomize_norms
from torch import nn

from compress.prune.sparse_training import ACTIVATIONS, Ramp, activated, finish, masked
from compress.prune.unstructured import PATTERNS, magnitude_mask
from nas.data.augment import Augmentation
from nas.errors import InvalidSetting
from nas.rundir import RunDir
from nas.torch_seeding import generator
from nas.training import loop
from nas.training.loop import Checkpoints, TrainConfig, train
from nas.training.objectives import classification

CONFIG = TrainConfig(epochs=3, batch_size=16, lr=0.05)
STEPS = 9
LEVELS = {"2:4": 3, "1:4": 3, "4:8": 5}  # of zeros in a group, none among them, on the way to a half
RAMPS = [Ramp(0.8, "global", 6), Ramp(0.8, "layer", STEPS), Ramp(0.5, "2:4", 6), Ramp(0.75, "1:4", 20)]


def net():
    """Two convolutions and two linear layers for the images of `blobs`."""
    layers = [nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, 3))
    rng = generator(0, "weights")
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=rng)
    return randomize_norms(module)


def steps_of(module, ramp, checkpoints=None):
    objective = masked(classification(module), module, ramp)
    return train(module, objective, blobs(), Augmentation(crop_padding=1, flip=False), CONFIG, checkpoints or Checkpoints())


def zeros(module, names):
    return {name: module.get_parameter(name).detach() == 0 for name in names}


# -- training


@pytest.mark.parametrize("ramp", RAMPS, ids=lambda ramp: ramp.pattern)
def test_a_trained_network_has_its_zeros(ramp):
    module = net()
    assert len(list(steps_of(module, ramp))) == STEPS
    masks = finish(module, ramp)
    found = zeros(module, masks)
    assert all(torch.equal(~mask, found[name]) for name, mask in masks.items())
    parts = [sum(z.numel() for z in found.values())] if ramp.pattern == "global" else [z.numel() for z in found.values()]
    assert sum(int(z.sum()) for z in found.values()) == sum(round(ramp.sparsity * part) for part in parts)


def test_two_of_four_inputs_are_zero_and_the_first_convolution_is_whole():
    module = net()
    list(steps_of(module, RAMPS[2]))
    masks = finish(module, RAMPS[2])
    assert list(masks) == ["3.weight", "6.weight", "8.weight"] and not (module[0].weight == 0).any()
    for found in zeros(module, masks).values():
        assert (found.unflatten(1, (-1, 4)).sum(2) == 2).all()


@pytest.mark.parametrize("ramp", RAMPS, ids=lambda ramp: ramp.pattern)
def test_resumed_is_uninterrupted(ramp, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", math.inf)
    whole = net()
    list(steps_of(whole, ramp))
    with RunDir.create("train", {}, tmp_path / "run") as run:
        for stop in (2, 7):
            first = steps_of(net(), ramp, Checkpoints(run, f"stop{stop}"))
            assert [next(first).step for _ in range(stop)] == list(range(1, stop + 1))
            resumed = net()
            assert len(list(steps_of(resumed, ramp, Checkpoints(run, f"stop{stop}")))) == STEPS - stop
            assert all(torch.equal(t, whole.state_dict()[n]) for n, t in resumed.state_dict().items())
            finish(resumed, ramp)
            expected = magnitude_mask(whole, ramp.sparsity, ramp.pattern)
            assert all(torch.equal(~z, expected[name]) for name, z in zeros(resumed, expected).items())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_step_sees_as_many_zeros_or_more(pattern):
    module, seen = net(), []
    names = magnitude_mask(module, 0.0, pattern)

    def noting(images, targets, step):
        seen.append(sum(int(z.sum()) for z in zeros(module, names).values()))
        yield module(images).sum()

    objective = masked(noting, module, Ramp(0.5, pattern, 10))
    for step in range(12):
        (loss,) = objective(images(2, 1, 8, 8), None, step)
        loss.backward()
        with torch.no_grad():  # what an optimizer does: weights that were zero are not any more
            for name in names:
                module.get_parameter(name).add_(0.01 * images(*names[name].shape, seed=step))
    assert seen[0] == 0 and seen == sorted(seen) and seen[10] == seen[11]
    if pattern in LEVELS:
        assert len(set(seen)) == LEVELS[pattern]
    assert seen[10] == pytest.approx(0.5 * sum(mask.numel() for mask in names.values()), rel=0.01)


def test_a_weight_that_grows_takes_the_place_of_another():
    module = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    objective = masked(classification(module), module, ramp := Ramp(0.5, "global", 1))
    list(objective(images(2, 4), torch.zeros(2, dtype=torch.long), 1))
    assert module.weight.tolist() == [[0, 0, 3, 4]]
    with torch.no_grad():
        module.weight[0, 0] = 5
    assert finish(module, ramp)["weight"].tolist() == [[True, False, False, True]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.5, "3:4", 10), "pattern '3:4' is not known"),
        ((0.6, "2:4", 10), "sparsity 0.6 is more than 2:4 has"),
        ((1.0, "global", 10), "sparsity 1.0 is no share"),
        ((0.5, "global", 0), "steps is 0; the zeros of a network rise over 1 step or more"),
    ],
)
def test_ramps_that_are_refused_before_the_training(settings, message):
    with pytest.raises(InvalidSetting, match=message):
        Ramp(*settings)


# -- activations

FUNCTIONS = {"silu": F.silu, "gelu": F.gelu, "hardswish": F.hardswish, "mish": F.mish, "elu": F.elu, "leaky-relu": F.leaky_relu}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_relu_is_replaced(name):
    module, x = net().eval(), images(4, 1, 8, 8)
    act = {**FUNCTIONS, "relu": F.relu}[name]
    y = act(module[1](module[0](x)))
    expected = module[8](act(module[6](act(module[3](y)).flatten(1))))
    before = module(x)
    found = activated(module, name, x)
    torch.testing.assert_close(found(x), expected, rtol=0, atol=0)
    assert torch.equal(module(x), before) and not any(part.training for part in found.modules())
    assert found.state_dict().keys() == module.state_dict().keys()


def test_a_relu_that_is_used_under_two_names_is_replaced_under_both():
    module = nn.Sequential(relu := nn.ReLU(), nn.Linear(4, 4), relu)
    assert [type(part) for part in activated(module, "mish", images(2, 4))] == [nn.Mish, nn.Linear, nn.Mish]


class Mixed(nn.Module):
    """One ReLU that is a module, and one that is not."""

    def __init__(self, function):
        super().__init__()
        self.linear, self.relu, self.function = nn.Linear(4, 4), nn.ReLU(), function

    def forward(self, x):
        return self.function(self.linear(self.relu(x)))


@pytest.mark.parametrize("function", [F.relu, torch.relu, torch.Tensor.relu_, nn.Linear(4, 4)])
def test_a_relu_out_of_reach_is_told(function):
    module = Mixed(function)
    if isinstance(function, nn.Module):
        assert isinstance(activated(module, "elu", images(2, 4)).relu, nn.ELU)
        return
    with pytest.raises(InvalidSetting, match=r"activation 'elu' cannot replace the ReLUs of Mixed: .*none a function"):
        activated(module, "elu", images(2, 4))


def test_what_has_no_relu_and_what_is_no_activation():
    with pytest.raises(InvalidSetting, match="activation 'silu' cannot replace the ReLUs of Linear"):
        activated(nn.Linear(4, 4), "silu", images(2, 4))
    with pytest.raises(InvalidSetting, match="activation 'swish' is not known; choose one of relu, silu"):
        activated(net(), "swish", images(1, 1, 8, 8))
