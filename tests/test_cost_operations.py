"""What is counted, operation by operation: by the plan, by a run, and by torch's own counter."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import DeformConv2d
from traced import Graph, assert_counts_agree, traced

from nas.cost.counting import PARAMS, count, macs, params
from nas.cost.operations import counting
from nas.cost.recount import recount, state_bytes
from nas.cost.storage import layer_tensors
from nas.cost.trace import trace

NO_PRODUCTS = [
    *(nn.PReLU(), nn.PReLU(4), nn.SELU(), nn.CELU(), nn.GLU(1), nn.Softsign(), nn.RReLU(), nn.LogSigmoid(), nn.Hardshrink()),
    *(nn.Softshrink(), nn.Tanhshrink(), nn.Threshold(0.1, 0.0), nn.LogSoftmax(1), nn.Softmin(1), nn.Softmax2d()),
    *(nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.ConstantPad2d(1, 2.0), nn.CircularPad2d(1), nn.LPPool2d(2, 2)),
    *(nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(4, track_running_stats=True)),
    *(nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False), nn.BatchNorm2d(4, momentum=None)),
    *(nn.LayerNorm([4, 8, 8]), nn.LayerNorm([8, 8], bias=False), nn.RMSNorm([8, 8]), nn.GroupNorm(2, 4, affine=False)),
    *(nn.LocalResponseNorm(3), nn.FractionalMaxPool2d(2, output_size=3), nn.AdaptiveAvgPool2d((1, None)), nn.Fold((9, 9), 2)),
]


def assert_all_is_stored(module, plan):
    """The layers have every parameter and every byte of the module."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}.values()
    assert sum(map(params, plan.layers)) == sum(p.numel() for p in module.parameters())
    assert sum(t.bytes for x in plan.layers for t in layer_tensors(x)) == sum(t.numel() * t.itemsize for t in tensors)


@pytest.mark.parametrize("layer", NO_PRODUCTS, ids=str)
def test_what_has_no_products_costs_its_parameters(layer):
    shape = (1, 4, 64) if isinstance(layer, nn.Fold) else (1, 4, 8, 8)
    module = nn.Sequential(layer, nn.Identity())
    cost = assert_counts_agree(module, torch.zeros(shape))
    assert cost.value("macs") == 0
    assert_all_is_stored(module, traced(module, *shape))


PRODUCTS = [
    (nn.ConvTranspose1d(4, 6, 3, 2, groups=2), (1, 4, 9), 4 * 9 * 3 * 3),
    (nn.ConvTranspose2d(4, 6, (3, 2), 2, output_padding=1, bias=False), (1, 4, 5, 5), 4 * 25 * 6 * 6),
    (nn.ConvTranspose3d(2, 3, 2), (1, 2, 4, 4, 4), 2 * 64 * 3 * 8),
    (nn.Conv3d(2, 4, 3, (1, 2, 2), 1, groups=2), (1, 2, 4, 6, 6), 4 * 4 * 9 * 27),
    (nn.Bilinear(3, 4, 5), None, 5 * 3 * 4),
    (nn.RNN(4, 5, batch_first=True), (1, 7, 4), 7 * (4 + 5) * 5),
    (nn.GRU(4, 5, num_layers=2, batch_first=True, bidirectional=True), (1, 7, 4), 7 * 2 * (3 * 5 * (4 + 5) + 3 * 5 * (10 + 5))),
    (nn.LSTM(4, 5, bias=False), (1, 7, 4), 7 * 4 * 5 * (4 + 5)),
    (nn.LSTM(4, 5), (1, 7, 4), 7 * 4 * 5 * (4 + 5)),
    (nn.MultiheadAttention(8, 2), (1, 5, 8), 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8),
    (nn.TransformerEncoderLayer(8, 2, 16), (1, 5, 8), 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8 + 2 * 5 * 8 * 16),
]


class First(nn.Module):
    """One layer by itself, along the second axis of (1, length, channels), and the first of what it gives."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.first = getattr(getattr(layer, "self_attn", layer), "batch_first", True)

    def forward(self, x):
        x = x if self.first else x.transpose(0, 1)
        inputs = {nn.MultiheadAttention: (x, x, x), nn.Bilinear: (x[..., :3], x)}.get(type(self.layer), (x,))
        result = self.layer(*inputs)
        return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize(("layer", "shape", "expected"), PRODUCTS, ids=lambda x: type(x).__name__)
def test_what_multiplies(layer, shape, expected):
    module, example = First(layer), torch.zeros(shape or (1, 4))
    planned, counted = count(trace(module, example)), recount(module, example)
    assert (planned.uncounted, counted.uncounted) == ((), ())
    assert planned.value("macs") == counted.value("macs") == expected
    assert_all_is_stored(module, trace(module, example))


def test_a_decoder_attends_to_another_sequence():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)

        def forward(self, x):
            return self.layers(x, x[:, :3])

    plan = traced(Decoder(), 1, 5, 8)
    own = 5 * 8 * 24 + 2 * 5 * 5 * 8 + 5 * 8 * 8
    other = 5 * 8 * 8 + 3 * 8 * 16 + 2 * 5 * 3 * 8 + 5 * 8 * 8
    assert (
        count(plan).value("macs")
        == recount(Decoder(), torch.zeros(1, 5, 8)).value("macs")
        == 2 * (own + other + 2 * 5 * 8 * 16)
    )
    assert_all_is_stored(Decoder(), plan)


# -- convolutions by function


class Filtered(nn.Module):
    """A convolution by a parameter of any name, by a buffer, by one that is read twice, and by a computed one."""

    def __init__(self):
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.rand(6, 3, 3, 3)), nn.Parameter(torch.rand(6))
        self.register_buffer("blur", torch.ones(6, 1, 3, 3))
        self.mix, self.bank = nn.Linear(6, 2), nn.Parameter(torch.rand(2, 5 * 6 * 9))
        self.twice = nn.Parameter(torch.rand(5, 5, 1, 1))

    def forward(self, x):
        x = F.conv2d(x, self.kernel, self.shift, padding=1)
        x = F.conv2d(x, self.blur, stride=2, groups=6)
        filters = (self.mix(x.mean((2, 3))) @ self.bank).view(5, 6, 3, 3)
        x = F.conv2d(x, filters, padding=1)
        return F.conv_transpose2d(F.conv2d(F.conv2d(x, self.twice), self.twice), filters, stride=2)


def test_convolutions_by_any_tensor():
    module, example = Filtered(), torch.zeros(1, 3, 9, 9)
    with FlopCounterMode(display=False) as counter:
        module(example)
    cost = assert_counts_agree(module, example, ("macs", "params"))
    assert cost.value("macs") == counter.get_total_flops() // 2
    plan = trace(module, example)
    assert_all_is_stored(module, plan)
    first = next(x for x in plan.layers if x.op == "conv")
    assert (first.name, first.own, first.bias) == ("kernel", True, True)


def test_a_deformable_convolution():
    class Deformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset, self.conv = nn.Conv2d(4, 18, 3, padding=1), DeformConv2d(4, 6, 3, padding=1, groups=2)

        def forward(self, x):
            return self.conv(x, self.offset(x))

    assert_counts_agree(Deformed(), torch.zeros(1, 4, 8, 8)).value("macs")
    assert count(traced(Deformed(), 1, 4, 8, 8)).value("macs") == 64 * (18 * 36 + 6 * 18)


# -- tensors that a layer does not describe


def masked(layer):
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("change", [torch.nn.utils.weight_norm, weight_norm, masked, spectral_norm])
def test_weights_that_are_made_of_others(change):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), change(nn.Conv2d(4, 5, 3)), nn.BatchNorm2d(5))
    plan = traced(module, 1, 3, 8, 8)
    cost = assert_counts_agree(module, torch.zeros(1, 3, 8, 8))
    assert cost.value("macs") == 36 * 4 * 27 + 16 * 5 * 36
    assert_all_is_stored(module, plan)
    assert [x.own for x in plan.layers if x.op == "conv"] == [True, False]
    assert cost.value("size_bytes") == pytest.approx(state_bytes(module), abs=200)  # of longer names


def test_half_precision_is_stored_in_half_the_bytes():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).half()
    plan = traced(module, 1, 3, 8, 8)
    assert_all_is_stored(module, plan)
    assert_counts_agree(module, torch.zeros(1, 3, 8, 8))


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * torch.sigmoid(x)


def test_an_autograd_function_of_ones_own_is_looked_into():
    assert_counts_agree(Graph(lambda m, x: m.second(Swish.apply(m.conv(x)))), torch.zeros(1, 3, 8, 8))


def test_a_shared_head_and_its_norm():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)
            self.head = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.PReLU(6), nn.Conv2d(6, 2, 1))

        def forward(self, x):
            x = self.stem(x)
            return self.head(x).mean((2, 3)) + self.head(self.down(x)).mean((2, 3))

    cost = assert_counts_agree(Pyramid(), torch.zeros(1, 3, 8, 8))
    assert cost.value("macs") == 64 * 4 * 27 + (36 + 4) * (6 * 36 + 12)
    assert_all_is_stored(Pyramid(), traced(Pyramid(), 1, 3, 8, 8))


def test_what_a_layer_says_of_its_multiply_adds_is_held_against_what_is_computed():
    class Broadcast(nn.Module):
        def forward(self, x):
            return torch.einsum("bchw,bcwd->bhd", x, x[:, :1].transpose(2, 3))

    example = torch.zeros(1, 4, 8, 5)
    layer = traced(Broadcast(), *example.shape).layers[-1]
    with counting() as counted:
        Broadcast()(example)
    assert layer.op == "composite" and macs(layer) == counted.work.macs


def test_tensors_that_no_layer_has_are_named(monkeypatch):
    monkeypatch.setitem(PARAMS, "parameter", lambda layer: 0)
    module = Graph(lambda m, x: F.conv2d(x, m.second.weight[:, :3] * 2))
    assert count(traced(module, 1, 3, 8, 8)).uncounted == ("0 of 136 parameters (Graph)",)
