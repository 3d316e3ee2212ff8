"""Evaluators: the contract of all, and that the supernet's judges what is delivered."""

import copy

import pytest
import torch
import torch.nn.functional as F
from contracts.evaluator import EvaluatorContract
from networks import blobs, sandwiched, space_for
from toy_space import ToySpace

from nas.data.augment import Augmentation, normalize
from nas.evaluation.supernet import SupernetEvaluator, accuracy, calibrate, judge
from nas.evaluation.tabular import TabularEvaluator
from nas.supernet.supernet import Supernet
from nas.training.calibration import recalibrate
from nas.training.loop import Checkpoints, TrainConfig, train


@pytest.fixture(scope="module")
def data():
    return blobs()


@pytest.fixture(scope="module")
def supernet(data):
    net = Supernet(space_for("resnet"), seed=0)
    config = TrainConfig(epochs=5, batch_size=16, lr=0.05)
    for _ in train(net, sandwiched(net, 0), data, Augmentation(crop_padding=0, flip=False), config, Checkpoints()):
        pass
    return net


class TestSupernetEvaluator(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, supernet, data):
        return SupernetEvaluator(supernet, data, seed=0)

    @pytest.fixture
    def archs(self, supernet):
        return [supernet.space.smallest(), supernet.space.largest()]

    def test_the_supernet_is_not_changed(self, evaluator, supernet, archs):
        before = copy.deepcopy(supernet.state_dict())
        evaluator(archs[0])
        assert all(torch.equal(t, before[n]) for n, t in supernet.state_dict().items())

    def test_it_judges_the_module_that_it_delivers(self, evaluator, data, archs):
        for arch in archs:
            module = evaluator.deliver(arch)
            x = normalize(data.val.images, data.mean, data.std, "cpu")
            logits = module(x)
            scores = evaluator(arch)
            assert scores["val_accuracy"] == (logits.argmax(1) == data.val.labels).float().mean().item()
            assert scores["val_loss"] == pytest.approx(F.cross_entropy(logits, data.val.labels).item(), rel=1e-5)
            assert not module.training

    def test_what_was_learnt_is_in_the_extracted_network(self, evaluator, archs):
        assert evaluator(archs[-1])["val_accuracy"] > 0.9


class TestTabularEvaluator(EvaluatorContract):
    @pytest.fixture
    def archs(self):
        return [ToySpace().smallest(), ToySpace().largest()]

    @pytest.fixture
    def evaluator(self, archs):
        return TabularEvaluator({a.key: {"val_accuracy": 0.25 * (i + 1)} for i, a in enumerate(archs)})


def test_norms_are_calibrated_on_training_images_without_augmentation(supernet, data):
    arch = supernet.space.smallest()
    module, by_hand = supernet.extract(arch), supernet.extract(arch)
    calibrate(module, data, 8, seed=0)
    recalibrate(by_hand, [normalize(data.train.images, data.mean, data.std, "cpu")])
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value)


def test_accuracy_is_the_first_of_judge(supernet, data):
    module = SupernetEvaluator(supernet, data, 0).deliver(supernet.space.largest())
    assert accuracy(module, data.val, data, 8) == judge(module, data.val, data, 8)[0]
