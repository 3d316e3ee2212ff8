import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
import torchvision

from nas.cost.recount import recount
from nas.cost.trace import trace


def values(module, *shape):
    cost = recount(module, torch.zeros(shape))
    assert cost.uncounted == ()
    return cost.values()


def test_a_small_network_by_hand():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    found = values(module, 1, 3, 16, 16)
    assert found["macs"] == 8 * 64 * 27 + 8 * 64 * 25 + 80
    assert found["params"] == 8 * 27 + 16 + 8 * 25 + 8 + 90
    assert found["activations"] == 8 * 64 + 8 * 64 + 10
    assert found == values(module, 4, 3, 16, 16)  # one image, however many are given


def test_mobilenet_v2_is_the_papers_300_million():
    found = recount(torchvision.models.mobilenet_v2(), torch.zeros(1, 3, 224, 224))
    assert (found.value("macs"), found.value("params"), found.uncounted) == (300_774_272, 3_504_872, ())
    assert {m.method for m in found.metrics.values()} == {"operations of a run"}


class Attention(nn.Module):
    """Two heads by F.scaled_dot_product_attention."""

    def forward(self, x):
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads[..., :3])


def test_attention_is_counted():
    assert values(Attention(), 1, 5, 8)["macs"] == 2 * 5 * 5 * (4 + 3)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_multi_head_attention_is_counted_with_and_without_its_fast_path(weights, frozen):
    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.inner(x, x, x, need_weights=weights)[0]

    module = SelfAttention().requires_grad_(not frozen)
    fast = torch.backends.mha.get_fastpath_enabled()
    assert values(module, 1, 5, 8)["macs"] == 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_a_transformer_layer_by_hand():
    found = values(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, 5, 8)
    assert found["macs"] == (5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8) + 2 * 5 * 8 * 16


class Fourier(nn.Module):
    """An operation that nobody counts."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return torch.fft.rfft2(self.conv(x)).abs()


def test_what_has_no_rule_is_named():
    assert recount(Fourier(), torch.zeros(1, 3, 8, 8)).uncounted == ("aten::_fft_r2c",)


@pytest.mark.parametrize("look", [recount, trace])
def test_the_module_stays_as_it_was(look):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    module[1].eval()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    look(module, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [m.training for m in module.modules()] == [True, True, False, True]
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_tied_weights_are_parameters_once():
    module = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False))
    module[2].weight = module[0].weight
    found = values(module, 1, 6)
    assert (found["params"], found["macs"]) == (36, 72)
