import zlib

import pytest
import torch
from networks import images
from torch import nn

from compress.prune.unstructured import PATTERNS, apply_masks, compressed_bytes, magnitude_mask, sparsity_at
from nas.errors import InvalidSetting
from nas.torch_seeding import generator

N_OF_M = {"2:4": (2, 4), "1:4": (1, 4), "4:8": (4, 8)}


def net():
    """A first convolution, a grouped, a depthwise one and two linear layers, with random weights of different scales."""
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=2), nn.Conv2d(16, 16, 3, groups=16)]
    module = nn.Sequential(*layers, nn.Linear(16, 24, bias=False), nn.Linear(24, 5))
    rng = generator(0, "sparse")
    for scale, parameter in enumerate(module.parameters(), 1):
        nn.init.normal_(parameter, std=scale, generator=rng)
    return module


MATRICES = ["0.weight", "2.weight", "3.weight", "4.weight", "5.weight"]


def parameters(module):
    return {n: p.detach().clone() for n, p in module.named_parameters()}


# -- anywhere


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 1 / 3, 0.5, 0.9, 0.999])
def test_global_masks_drop_exactly_the_smallest(sparsity):
    module = net()
    masks, weights = magnitude_mask(module, sparsity), parameters(module)
    assert list(masks) == MATRICES and all(masks[n].shape == weights[n].shape for n in masks)
    kept = torch.cat([masks[n].flatten() for n in MATRICES])
    sizes = torch.cat([weights[n].abs().flatten() for n in MATRICES])
    assert int((~kept).sum()) == round(sparsity * len(kept))
    assert sparsity == 0 or sizes[~kept].max() <= sizes[kept].min()


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 1 / 3, 0.5, 0.9, 0.999])
def test_layer_masks_drop_the_same_share_of_each(sparsity):
    module = net()
    weights = parameters(module)
    for name, mask in magnitude_mask(module, sparsity, "layer").items():
        assert int((~mask).sum()) == min(round(sparsity * mask.numel()), mask.numel() - 1)  # one stays
        assert mask.all() or weights[name].abs()[~mask].max() <= weights[name].abs()[mask].min()


def test_of_equal_weights_the_first_go():
    module = nn.Linear(4, 2, bias=False)
    nn.init.ones_(module.weight)
    masks = magnitude_mask(module, 0.5)
    assert torch.equal(masks["weight"], torch.tensor([[False] * 4, [True] * 4]))


def test_attention_and_shared_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight

    assert list(magnitude_mask(Tied(), 0.5)) == ["attention.in_proj_weight", "attention.out_proj.weight", "first.weight"]


def test_a_network_without_matrices_has_no_masks():
    assert all(magnitude_mask(nn.BatchNorm2d(3), 0.5, pattern) == {} for pattern in PATTERNS)


# -- N of M


@pytest.mark.parametrize("pattern", N_OF_M)
def test_each_group_of_input_channels_keeps_its_n_largest(pattern):
    n, m = N_OF_M[pattern]
    module = net()
    masks, weights = magnitude_mask(module, 1 - n / m, pattern), parameters(module)
    assert list(masks) == ["2.weight", "4.weight", "5.weight"]  # 3 input channels, or 1 in a group, have no such groups
    for name, mask in masks.items():
        for start in range(0, mask.shape[1], m):
            kept, sizes = mask[:, start : start + m], weights[name][:, start : start + m].abs()
            assert torch.equal(kept.sum(1), torch.full_like(kept.sum(1), n))
            smallest_kept = sizes.masked_fill(~kept, torch.inf).amin(1)
            assert (sizes.masked_fill(kept, 0).amax(1) <= smallest_kept).all()


def test_on_the_way_fewer_go_from_each_group():
    module = net()
    for sparsity, dropped in [(0.0, 0), (0.2, 1), (0.3, 1), (0.4, 2), (0.7, 3), (0.75, 3)]:
        for mask in magnitude_mask(module, sparsity, "1:4").values():
            assert ((~mask).unflatten(1, (-1, 4)).sum(2) == dropped).all()


# -- masks


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masked_weights_are_zero_and_the_rest_is_untouched(pattern):
    module = net()
    before, masks = parameters(module), magnitude_mask(module, 0.5, pattern)
    apply_masks(module, masks)
    for name, after in parameters(module).items():
        assert torch.equal(after, before[name].where(masks[name], 0) if name in masks else before[name])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masks_are_idempotent_and_grow(pattern):
    module = net()
    masks = magnitude_mask(module, 0.25, pattern)
    apply_masks(module, masks)
    again = magnitude_mask(module, 0.25, pattern)
    assert all(torch.equal(again[n], masks[n]) for n in masks)
    more = magnitude_mask(module, 0.5, pattern)
    assert all((masks[n] | ~more[n]).all() for n in masks)  # what was zero goes first


def test_masks_of_another_network_are_refused():
    masks = magnitude_mask(net(), 0.5)
    with pytest.raises(InvalidSetting, match=r"no parameter '0.weight' of shape \(16, 3, 3, 3\)"):
        apply_masks(nn.Sequential(nn.Conv2d(3, 8, 3)), masks)


@pytest.mark.parametrize(
    ("sparsity", "pattern", "message"),
    [
        (0.5, "3:4", "pattern '3:4' is not known; choose one of global, layer, 2:4, 1:4, 4:8"),
        (1.0, "global", "sparsity 1.0 is no share of weights to drop; give at least 0 and less than 1"),
        (-0.1, "layer", "sparsity -0.1"),
        (float("nan"), "layer", "sparsity nan"),
        (0.6, "2:4", "sparsity 0.6 is more than 2:4 has; give at most 0.5"),
    ],
)
def test_what_cannot_be_masked(sparsity, pattern, message):
    with pytest.raises(InvalidSetting, match=message):
        magnitude_mask(net(), sparsity, pattern)


def test_the_ramp_is_cubic():
    assert [sparsity_at(step, 4, 0.8) for step in (0, 4, 9)] == [0, 0.8, 0.8]
    assert sparsity_at(1, 2, 0.8) == pytest.approx(0.8 * 7 / 8)
    ramp = [sparsity_at(step, 10, 0.9) for step in range(11)]
    steps = [b - a for a, b in zip(ramp, ramp[1:], strict=False)]
    assert steps == sorted(steps, reverse=True) and min(steps) > 0


# -- size


def test_sizes_by_hand():
    module = nn.Linear(100, 10, bias=False)
    module.register_buffer("steps", torch.tensor(7))
    with torch.no_grad():
        module.weight.zero_()[0, :6] = images(6)
    data = [module.weight.detach().numpy().tobytes(), module.steps.numpy().tobytes()]
    found = compressed_bytes(module)
    assert found.dense == 4000 + 8
    assert found.bitmask == (125 + 6 * 4) + 8  # the mask of one number would only add to it
    assert found.zlib == sum(len(zlib.compress(d, 6)) for d in data)


def test_dense_weights_do_not_grow_by_a_mask():
    module = nn.Linear(16, 16).half()
    found = compressed_bytes(module)
    assert found.dense == found.bitmask == 2 * 16 * 17


def test_sparse_weights_compress():
    module = net()
    before = compressed_bytes(module)
    apply_masks(module, magnitude_mask(module, 0.9))
    after = compressed_bytes(module)
    assert after.dense == before.dense
    assert after.zlib < 0.5 * before.zlib and after.bitmask < 0.5 * before.bitmask
