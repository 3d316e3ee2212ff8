"""The supernet: a subnet is a slice, an extracted network is that subnet."""

import pytest
import torch
from networks import images, randomize_norms, space_for

from nas.seeding import numpy_rng
from nas.supernet.supernet import SKELETONS, NestedSlices, Supernet, initialize, nested_index
from nas.training.calibration import recalibrate
from search_spaces.staged import DataShape

SPACES = [
    ("mobilenet", {}),
    ("mobilenet", {"squeeze_excite": True}),
    ("resnet", {}),
    ("resnet", {"block": "bottleneck"}),
    ("fbnet", {}),
]


@pytest.fixture(params=SPACES, ids=str, scope="module")
def supernet(request):
    name, options = request.param
    space = space_for(name, "3MFLOPs", DataShape(1, 8, 3), **options)
    net = Supernet(space, seed=0)
    randomize_norms(net.shared)
    return net


def archs(supernet, count=6):
    space = supernet.space
    return [space.smallest(), space.largest(), *(space.sample(numpy_rng(0, i)) for i in range(count))]


def test_extracted_network_is_the_subnet(supernet):
    x = images(8, 1, 8, 8)
    for arch in archs(supernet):
        assert torch.equal(supernet.extract(arch).train()(x), supernet(x, arch))


def test_gradients_are_those_of_the_extracted_network_in_its_slice(supernet):
    x = images(8, 1, 8, 8)
    for arch in archs(supernet, 2):
        module = supernet.extract(arch).train()
        module(x).square().sum().backward()
        supernet.zero_grad()
        supernet(x, arch).square().sum().backward()
        shared = dict(supernet.shared.named_parameters())
        for name, parameter in module.named_parameters():
            full = shared[name].grad
            mine = full[nested_index(full.shape, parameter.shape) or ...]
            torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(full.abs().sum(), mine.abs().sum())


def test_extraction_copies(supernet):
    arch = supernet.space.largest()
    module = supernet.extract(arch)
    before = supernet(images(4, 1, 8, 8), arch)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(before, supernet(images(4, 1, 8, 8), arch))


def test_forward_keeps_no_state(supernet):
    x, first, *others = images(4, 1, 8, 8), *archs(supernet)
    before, state = supernet(x, first), {n: t.clone() for n, t in supernet.state_dict().items()}
    for arch in others:
        supernet(x, arch)
    assert torch.equal(before, supernet(x, first))
    assert all(torch.equal(t, state[n]) for n, t in supernet.state_dict().items())


def test_a_small_kernel_is_the_centre_of_the_large_one():
    full = torch.arange(2.0 * 3 * 7 * 7).reshape(2, 3, 7, 7)
    index = nested_index(full.shape, torch.Size((1, 2, 3, 3)))
    assert torch.equal(full[index], full[:1, :2, 2:5, 2:5])
    assert nested_index(full.shape, full.shape) is None


def test_the_gradient_of_slices_is_exact():
    tensors = [
        torch.randn(4, 3, 5, 5, dtype=torch.double, requires_grad=True),
        torch.randn(4, dtype=torch.double, requires_grad=True),
    ]
    indices = (nested_index(tensors[0].shape, torch.Size((2, 3, 3, 3))), nested_index(tensors[1].shape, torch.Size((3,))))
    assert torch.autograd.gradcheck(lambda *t: NestedSlices.apply(indices, *t), tensors)


def test_images_are_resized_to_the_subnet():
    space = space_for("mobilenet", "3MFLOPs", DataShape(3, 32, 3), resolutions=(16, 32))
    net = Supernet(space, seed=0)
    small = space.architecture({**space.largest().choices, "resolution": 16})
    x = images(2, 3, 32, 32)
    x16 = torch.nn.functional.interpolate(x, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(net(x, small), net(x16, small))


def test_initialization_is_a_function_of_the_seed():
    space = space_for("resnet")
    first, again, other = (Supernet(space, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(t, again[n]) for n, t in first.items())
    assert any(not torch.equal(t, other[n]) for n, t in first.items())


def test_residual_branches_start_at_zero():
    space = space_for("mobilenet", "3MFLOPs", DataShape(1, 8, 3))
    module = space.network(space.largest())
    initialize(module, 0)
    first, second = module.stages[0][0], module.stages[0][1]
    assert first.project.norm.weight.eq(1).all() and second.project.norm.weight.eq(0).all()


def test_skeletons_are_bounded():
    net = Supernet(space_for("mobilenet", "3MFLOPs", DataShape(1, 8, 3)), 0)
    for i in range(SKELETONS + 5):
        net.weights(net.space.sample(numpy_rng(1, i)))
    assert len(net._skeletons) == SKELETONS


def test_recalibration_is_the_mean_over_batches(supernet):
    module = supernet.extract(supernet.space.smallest())
    batches = [images(16, 1, 8, 8, seed=s) for s in range(3)]
    recalibrate(module, batches)
    outputs = torch.stack([module.stem.conv(x).transpose(0, 1).flatten(1) for x in batches])
    torch.testing.assert_close(module.stem.norm.running_mean, outputs.mean(2).mean(0))
    torch.testing.assert_close(module.stem.norm.running_var, outputs.var(2).mean(0))
    assert module.stem.norm.momentum == 0.1 and not module.training
