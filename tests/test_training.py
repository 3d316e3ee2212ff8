"""The training loop: resume equals no interruption, divergence keeps what was good, and the schedule."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import blobs, sandwiched, space_for

from nas.data.augment import Augmentation, resize
from nas.errors import CorruptRun, InvalidSetting, TrainingDiverged
from nas.rundir import RunDir
from nas.supernet.supernet import Supernet, initialize
from nas.training import loop
from nas.training.loop import Checkpoints, TrainConfig, learning_rate, make_optimizer, train
from nas.training.objectives import (
    Distillation,
    at_resolution,
    classification,
    distillation,
    in_place,
    soft_cross_entropy,
)

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.05)
AUGMENTATION = Augmentation(crop_padding=1, flip=False)


@pytest.fixture
def data():
    return blobs()


@pytest.fixture(params=["sgd", "adamw"])
def config(request):
    return TrainConfig(epochs=2, batch_size=16, lr={"sgd": 0.05, "adamw": 0.002}[request.param], optimizer=request.param)


@pytest.fixture
def run(tmp_path):
    with RunDir.create("train", {}, tmp_path / "run") as opened:
        yield opened


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", math.inf)


def new_supernet():
    return Supernet(space_for("resnet"), seed=0)


def steps_of(net, data, config, checkpoints=None):
    return train(net, sandwiched(net, config.seed), data, AUGMENTATION, config, checkpoints or Checkpoints())


def same_weights(a, b):
    return all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())


def test_resumed_is_uninterrupted(data, config, run, every_step):
    whole = new_supernet()
    steps = len(list(steps_of(whole, data, config)))
    assert steps == 6
    for stop in (1, 3, 5):
        name = f"stop{stop}"
        first = steps_of(new_supernet(), data, config, Checkpoints(run, name))
        assert [next(first).step for _ in range(stop)] == list(range(1, stop + 1))
        resumed = new_supernet()
        assert [p.step for p in steps_of(resumed, data, config, Checkpoints(run, name))] == list(range(stop + 1, steps + 1))
        assert same_weights(whole, resumed)


def test_a_finished_training_is_not_repeated(data, run, every_step):
    list(steps_of(new_supernet(), data, CONFIG, Checkpoints(run, "a")))
    assert list(steps_of(new_supernet(), data, CONFIG, Checkpoints(run, "a"))) == []


def test_checkpoints_are_rarer_than_steps_that_are_too_fast_for_them(data, run, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SHARE", 1e-9)
    checkpoints = Checkpoints(run, "a")
    for progress in steps_of(new_supernet(), data, CONFIG, checkpoints):
        assert checkpoints.step == (6 if progress.step == 6 else 1), "the first and the last are always written"


def test_a_corrupt_checkpoint_is_named(data, run, every_step):
    list(steps_of(new_supernet(), data, CONFIG, Checkpoints(run, "a")))
    file = next((run.path / "checkpoint").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptRun, match=file.name):
        list(steps_of(new_supernet(), data, CONFIG, Checkpoints(run, "a")))


def test_it_learns(data):
    net = new_supernet()
    losses = [p.loss for p in steps_of(net, data, TrainConfig(epochs=10, batch_size=16, lr=0.05))]
    assert losses[-1] < 0.5 * losses[0]


def test_divergence_keeps_weights_and_checkpoint(data, run, every_step):
    net = new_supernet()
    objective, seen = sandwiched(net, 0), []

    def poisoned(images, targets, step):
        for loss in objective(images, targets, step):
            yield loss * (math.nan if step == 3 else 1)

    with pytest.raises(TrainingDiverged, match=r"step 3 .*the checkpoint of step 3 is kept.*--lr"):
        for progress in train(net, poisoned, data, AUGMENTATION, CONFIG, Checkpoints(run, "a")):
            seen.append(progress.step)
    assert seen == [1, 2, 3]
    kept = new_supernet()
    assert Checkpoints(run, "a").restore(kept, make_optimizer(kept, CONFIG)) == 3
    assert same_weights(net, kept)
    assert all(t.isfinite().all() for t in net.state_dict().values())


@pytest.mark.parametrize(("spoiled", "kept"), [(0, 0), (3, 3)])
def test_weights_that_a_step_spoiled_are_not_kept(data, run, every_step, spoiled, kept):
    net = new_supernet()
    objective = sandwiched(net, 0)

    def exploding(images, targets, step):
        if step > spoiled:
            with torch.no_grad():
                for p in net.parameters():
                    p.mul_(1e30)
        yield from objective(images, targets, step)

    with pytest.raises(TrainingDiverged, match=f"step {kept} is kept" if kept else "no step before it is worth keeping"):
        for _ in train(net, exploding, data, AUGMENTATION, CONFIG, Checkpoints(run, "a")):
            pass
    again = new_supernet()
    assert Checkpoints(run, "a").restore(again, make_optimizer(again, CONFIG)) == kept
    lower = replace(CONFIG, lr=0.1 * CONFIG.lr)
    steps = [p.step for p in train(again, sandwiched(again, 0), data, AUGMENTATION, lower, Checkpoints(run, "a"))]
    assert steps[0] == kept + 1 and all(t.isfinite().all() for t in again.state_dict().values())


def test_in_place_distillation_is_the_sum_of_its_parts(data):
    net = new_supernet()
    space, x = net.space, torch.randn(8, 1, 8, 8)
    y = torch.arange(8) % 3
    drawn = (space.largest(), space.smallest(), space.sample(np.random.default_rng(3)))
    losses = list(in_place(net, lambda step: drawn[: step + 1], smoothing=0.1)(x, y, 2))
    teacher = net(x, space.largest())
    expected = [torch.nn.functional.cross_entropy(teacher, y, label_smoothing=0.1)]
    expected += [soft_cross_entropy(net(x, arch), teacher.detach()) for arch in drawn[1:]]
    torch.testing.assert_close(torch.stack(losses), torch.stack(expected))
    assert len(list(in_place(net, lambda step: drawn[: step + 1])(x, y, 0))) == 1


def test_distillation_from_a_perfect_copy_is_the_entropy_floor():
    logits = torch.randn(4, 3)
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(soft_cross_entropy(logits, logits), entropy)


def test_distillation_mixes_labels_and_teacher():
    space = space_for("resnet")
    student, teacher = space.network(space.smallest()), space.network(space.largest())
    initialize(student, 0), initialize(teacher, 1)
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    (mixed,) = distillation(student, teacher.eval(), Distillation(share=0.25))(x, y, 0)
    (label,) = classification(student)(x, y, 0)
    torch.testing.assert_close(mixed, 0.75 * label + 0.25 * soft_cross_entropy(student(x), teacher(x)))


def test_a_network_alone_is_trained_at_its_own_resolution():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))  # reads 6x6 pixels, and no others
    x, y = torch.randn(4, 1, 8, 8), torch.arange(4) % 3
    (loss,) = classification(at_resolution(net, 6))(x, y, 0)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(net(resize(x, 6)), y))


def test_learning_rate_warms_up_and_decays_to_zero():
    config = TrainConfig(epochs=1, batch_size=1, lr=2.0, warmup=0.1)
    rates = [learning_rate(config, s, 100) for s in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[55] == pytest.approx(2.0 * 0.5) and rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_norms_and_biases_are_not_decayed():
    net = new_supernet()
    decayed, free = make_optimizer(net, CONFIG).param_groups
    assert decayed["weight_decay"] == CONFIG.weight_decay and free["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"]) and all(p.ndim == 1 for p in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(net.parameters()))


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InvalidSetting, match="optimizer 'lion' is not known; choose one of sgd, adamw"):
        make_optimizer(new_supernet(), TrainConfig(epochs=1, batch_size=1, optimizer="lion"))


@pytest.mark.parametrize("name, value", [("epochs", 0), ("batch_size", -1), ("lr", 0), ("clip_norm", 0), ("weight_decay", -1)])
def test_a_number_out_of_range_is_refused(name, value):
    with pytest.raises(InvalidSetting, match=f"{name} is {value}"):
        replace(CONFIG, **{name: value})


def test_bf16_trains_close_to_fp32(data):
    losses = {}
    for precision in ("fp32", "bf16"):
        config = TrainConfig(epochs=2, batch_size=16, lr=0.05, precision=precision)
        with warnings.catch_warnings():
            losses[precision] = [p.loss for p in steps_of(new_supernet(), data, config)]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)
    assert losses["bf16"] != losses["fp32"]
