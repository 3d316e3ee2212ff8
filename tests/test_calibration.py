"""Batch norms on other statistics: those of the batch, and the mean of several batches."""

import pytest
import torch
from networks import images, randomize_norms
from torch import nn

from nas.training.calibration import batch_statistics, recalibrate


def network() -> nn.Sequential:
    """A norm of maps and one of features, both behind a dropout; layers 1, 2 and 5, 6."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4, momentum=0.3), nn.Flatten()
    module = nn.Sequential(*layers, nn.Linear(36, 6), nn.Dropout(0.5), nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 2))
    nn.init.uniform_(module[6].weight, 0.5, 1.5)
    return randomize_norms(module)


def states(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def batches():
    return [images(n, 3, 5, 5, seed=n) for n in (8, 5, 6)]


@torch.no_grad()
def test_statistics_are_means_over_batches_without_dropout(batches):
    module = network().train()
    before = states(module)
    recalibrate(module, iter(batches))
    conv, _, maps, flat, linear, _, features, _ = module
    seen = [conv(x) for x in batches]
    torch.testing.assert_close(maps.running_mean, torch.stack([y.mean((0, 2, 3)) for y in seen]).mean(0))
    torch.testing.assert_close(maps.running_var, torch.stack([y.var((0, 2, 3)) for y in seen]).mean(0))
    # what the second norm sees went through the first one on the batch's own statistics
    normal = [(y - y.mean((0, 2, 3), True)) / (y.var((0, 2, 3), keepdim=True, correction=0) + maps.eps).sqrt() for y in seen]
    seen = [linear(flat(y * maps.weight[:, None, None] + maps.bias[:, None, None])) for y in normal]
    torch.testing.assert_close(features.running_mean, torch.stack([y.mean(0) for y in seen]).mean(0))
    torch.testing.assert_close(features.running_var, torch.stack([y.var(0) for y in seen]).mean(0))
    assert {n for n, tensor in module.state_dict().items() if not torch.equal(tensor, before[n])} == {
        f"{norm}.{name}" for norm in (2, 6) for name in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_momenta_are_restored_and_the_module_evaluates(batches):
    module = network().train()
    recalibrate(module, batches)
    assert not any(part.training for part in module.modules())
    assert (module[2].momentum, module[6].momentum) == (0.3, None)
    with pytest.raises(RuntimeError), batch_statistics(module):
        assert module[2].momentum == module[6].momentum == 0 and module[6].training and not module[1].training
        module(images(2, 3, 9, 9))
    assert not any(part.training for part in module.modules())
    assert (module[2].momentum, module[6].momentum) == (0.3, None)


def test_without_batches_statistics_stay():
    module = network().train()
    before = states(module)
    recalibrate(module, ())
    assert not module.training and all(torch.equal(tensor, before[n]) for n, tensor in module.state_dict().items())


def test_without_norms_nothing_is_run(batches):
    module = nn.Sequential(nn.Flatten(), nn.Linear(75, 6), nn.BatchNorm1d(6, track_running_stats=False)).train()
    runs = []
    module.register_forward_hook(lambda *_: runs.append(1))
    recalibrate(module, batches)
    assert not runs and not module.training and module[2].running_mean is None


@torch.no_grad()
def test_statistics_of_the_batch_for_a_while(batches):
    module, x = network().eval(), batches[0]
    whole, before = module(x), states(module)
    with batch_statistics(module):
        found = module(x)
    recalibrate(module, [x])
    # running variances are unbiased, those of the batch are not
    for norm, count in ((module[2], 8 * 3 * 3), (module[6], 8)):
        norm.running_var *= (count - 1) / count
    torch.testing.assert_close(found, module(x))
    assert not torch.allclose(found, whole, atol=1e-2)
    module.load_state_dict(before)
    torch.testing.assert_close(module(x), whole, rtol=0, atol=0)


def test_running_statistics_do_not_move_by_themselves(batches):
    module = network()
    before = states(module)
    with batch_statistics(module):
        for x in batches:
            module(x)
    running = [name for name in before if "running" in name]
    assert len(running) == 4 and all(torch.equal(module.state_dict()[name], before[name]) for name in running)
    with batch_statistics(module, momentum=1.0):
        module(batches[0])
    torch.testing.assert_close(module[2].running_mean, module[0](batches[0]).mean((0, 2, 3)))
