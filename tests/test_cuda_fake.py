"""Training, calibration, evaluation and the last training on the device `cuda`, without one.

Under torch's FakeTensorMode every operation is carried out on shapes and devices alone: an operation on tensors of two devices
fails as it would on a GPU. What is read back from the device has a value put in its place, and gradients are made up, for
torch's engine asks for a real GPU: what runs backward is not tested here.
"""

import pytest
import torch
from networks import sandwiched, space_for
from torch._subclasses.fake_tensor import FakeTensorMode

from nas.data.augment import Augmentation
from nas.data.dataset import ArraySplit, Dataset
from nas.evaluation import supernet as evaluation
from nas.evaluation.alone import AloneEvaluator, Lesson
from nas.evaluation.supernet import SupernetEvaluator, resolution_of
from nas.supernet.supernet import Supernet
from nas.training.loop import Checkpoints, TrainConfig, train
from nas.training.objectives import Distillation, at_resolution, distillation
from search_spaces.staged import DataShape

CUDA = torch.device("cuda", 0)
CONFIG = TrainConfig(1, 16)  # autocast asks for a real GPU


def converted(module, convert, recurse=True):
    """`nn.Module._apply`, which exchanges tensors in place, for tensors that cannot be exchanged."""
    for child in module.children():
        converted(child, convert)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            module._parameters[name] = torch.nn.Parameter(convert(parameter.detach()), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = convert(buffer)
    return module


def made_up_gradients(loss):
    """`Tensor.backward` that gives every leaf a gradient of its shape, on its device."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            node.variable.grad = torch.empty_like(node.variable)
        waiting += [follower for follower, _ in node.next_functions]


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """A machine with a GPU that calculates nothing."""
    monkeypatch.setattr(torch.nn.Module, "_apply", converted)
    monkeypatch.setattr(torch.Tensor, "backward", made_up_gradients)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda value: 0.5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def data(side=16):
    images = torch.zeros(48, 3, side, side, dtype=torch.uint8, device=CUDA)
    split = ArraySplit(images, torch.zeros(48, dtype=torch.int64, device=CUDA))
    test = ArraySplit(images.cpu(), split.labels.cpu())
    return Dataset("fake", split, split, lambda: test, tuple("0123456789"), 3, side, (0.5,) * 3, (0.2,) * 3, True, "0")


def spaces():
    return [space_for(name, "300kFLOPs", DataShape(3, 16, 10)) for name in ("convnet", "resnet", "mobilenet", "fbnet")]


@pytest.mark.parametrize("number", range(4))
def test_a_supernet_trains_is_evaluated_and_teaches(number):
    space, own = spaces()[number], data()
    supernet = Supernet(space, 0).to(CUDA)
    steps = list(train(supernet, sandwiched(supernet, 0), own, Augmentation(1, True, 2), CONFIG, Checkpoints()))
    assert len(steps) == 3
    assert {p.device for p in supernet.parameters()} == {CUDA}
    evaluator = SupernetEvaluator(supernet, own, 0)
    assert set(evaluator(space.smallest())) == {"val_accuracy", "val_loss"}
    student = evaluator.deliver(space.smallest())
    teacher = at_resolution(evaluator.deliver(space.largest()), resolution_of(space.largest()))
    objective = distillation(student, teacher, Distillation(smoothing=0.1))
    assert len(list(train(student, objective, own, Augmentation(1, True), CONFIG, Checkpoints()))) == 3
    evaluation.judge(student, own.load_test(), own, 16)


def test_a_network_trains_alone():
    space, own = spaces()[0], data()
    evaluator = AloneEvaluator(space, Lesson(own, Augmentation(1, True), CONFIG), 0, CUDA)
    evaluator(space.largest())
    assert {p.device for p in evaluator.deliver(space.largest()).parameters()} == {CUDA}


def test_a_tensor_that_was_left_behind_fails():
    space, own = spaces()[0], data()
    module = space.network(space.largest()).to(CUDA)
    behind = torch.ones(10)

    def objective(images, targets, step):
        yield (module(images) + behind).sum()

    with pytest.raises(RuntimeError, match="two different devices|same device"):
        list(train(module, objective, own, Augmentation(0, False), CONFIG, Checkpoints()))
