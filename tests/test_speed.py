"""What a training step takes, measured: with the loop that will train, on weights that stay as they were."""

import itertools

import torch
from networks import blobs, space_for

from nas.data.augment import Augmentation
from nas.training import speed
from nas.training.loop import TrainConfig
from nas.training.objectives import classification

SPACE = space_for("resnet")


def test_a_whole_step_is_timed_and_leaves_the_network_as_it_was(monkeypatch):
    ticks = itertools.accumulate([50.0, *[3.0, 2.0, 4.0] * 20])
    monkeypatch.setattr(speed, "work_seconds", lambda device: next(ticks))
    module = SPACE.network(SPACE.largest())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    seen = []

    def objective(images, targets, step):
        seen.append(len(images))
        return classification(module)(images, targets, step)

    config = TrainConfig(epochs=50, batch_size=16, lr=0.5)
    assert speed.seconds_of_training(module, objective, blobs(), Augmentation(1, True), config) == 3.0
    assert seen == [16] * speed.WHOLE_STEPS
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
