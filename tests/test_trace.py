import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
import torchvision
from torchvision.models import VisionTransformer
from traced import Graph, assert_counts_agree, traced

from nas.budget import Budget
from nas.cost.counting import count
from nas.cost.recount import recount
from nas.cost.storage import layer_tensors
from nas.cost.trace import Untraceable, trace
from nas.errors import NasError
from nas.seeding import numpy_rng
from search_spaces import SPACES
from search_spaces.fbnet import FBNetOptions
from search_spaces.mobilenet import MobileNetOptions
from search_spaces.resnet import ResNetOptions
from search_spaces.staged import DataShape

# -- plan = trace = count, for our spaces


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet", MobileNetOptions()),
        ("mobilenet", MobileNetOptions(squeeze_excite=True, resolutions=(12, 16))),
        ("resnet", ResNetOptions()),
        ("resnet", ResNetOptions(block="bottleneck")),
        ("fbnet", FBNetOptions()),
    ],
)
def test_the_plan_of_a_network_is_its_trace_and_its_count(name, options):
    family, rng = SPACES[name], numpy_rng(0, "trace")
    space = family.make(DataShape(3, 16, 10), family.macros[2], 0.5, options)
    for arch in (space.largest(), space.sample(rng), space.sample(rng)):
        side, module = arch.choices["resolution"], space.network(arch)
        plan, found = space.plan(arch), traced(module, 1, 3, side, side)
        assert found.canonical() == plan.canonical()
        assert count(found) == count(plan)  # the names too: they are in the size of the file
        counted = recount(module, torch.zeros(1, 3, side, side))
        assert counted.uncounted == ()
        assert counted.values() == {n: count(plan).value(n) for n in counted.metrics}


# -- other people's networks


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "vgg11_bn", "shufflenet_v2_x0_5", "squeezenet1_1"],
)
def test_torchvision_networks_cost_what_fvcore_counts(name):
    with torch.device("meta"):  # the count needs no initialized weights
        module = getattr(torchvision.models, name)()
    assert_counts_agree(module.to_empty(device="cpu"), torch.zeros(1, 3, 64, 64))


def test_published_numbers():
    with torch.device("meta"):
        cost = count(trace(torchvision.models.resnet18(), torch.zeros(1, 3, 224, 224)))
    assert (cost.value("macs"), cost.value("params")) == (1_814_073_344, 11_689_512)


def test_a_vision_transformer():
    module = VisionTransformer(image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=12, mlp_dim=24, num_classes=5)
    assert_counts_agree(module, torch.zeros(1, 3, 16, 16))


def test_torchvision_layer_norms_and_layer_scale():
    block = torchvision.models.convnext.CNBlockConfig(8, 16, 1)
    module = torchvision.models.ConvNeXt([block, torchvision.models.convnext.CNBlockConfig(16, None, 1)])
    assert_counts_agree(module, torch.zeros(1, 3, 32, 32))


class Along(nn.Conv1d):
    """A convolution by function."""

    def forward(self, x):
        return F.conv1d(x, self.weight, self.bias, self.stride)


class Product(nn.Module):
    """A linear layer on tokens, and the product of its output with itself."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 5, bias=False)

    def forward(self, x):
        y = self.linear(x)
        return (y @ y.transpose(1, 2)).softmax(-1).mean(1) * 2 - 1


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (Product(), (1, 7, 6)),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.GroupNorm(2, 6), nn.SiLU()), (1, 4, 5, 5)),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.BatchNorm1d(100), nn.Linear(100, 3)), (1, 3, 5, 5)),
        (
            nn.Sequential(nn.Conv1d(4, 6, 3, 2, groups=2), nn.BatchNorm1d(6), nn.ReLU(), nn.AvgPool1d(2), Along(6, 5, 2)),
            (1, 4, 13),
        ),
        (nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.LayerNorm(8, bias=False)), (1, 6)),
        (nn.Sequential(nn.ZeroPad2d(1), nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3), nn.Softmax(1)), (1, 3, 5, 5)),
    ],
)
def test_small_modules_cost_what_fvcore_counts(module, shape):
    assert_counts_agree(module, torch.zeros(shape))


def test_parameters_that_never_run_are_stored_all_the_same():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return (self.used(x), self.idle(x)) if self.training else self.used(x)

    plan = trace(Auxiliary(), torch.zeros(1, 4))
    assert [(x.op, x.name) for x in plan.layers] == [
        ("parameter", "idle.weight"),
        ("parameter", "idle.bias"),
        ("linear", "used"),
    ]
    assert_counts_agree(Auxiliary(), torch.zeros(1, 4))
    assert count(plan).value("peak_bytes") == 4 * (4 + 4)


# -- fusing


def shape_of(run):
    plan = traced(Graph(run), 1, 3, 8, 8)
    return [(x.op, x.norm, x.act) for x in plan.layers if x.inputs]


@pytest.mark.parametrize(
    ("run", "layers"),
    [
        (lambda m, x: m.relu(m.norm(m.conv(x))), [("conv", True, "relu")]),
        (lambda m, x: F.relu(m.norm(m.conv(x)), inplace=True), [("conv", True, "relu")]),
        (lambda m, x: m.norm(m.conv(x)).relu(), [("conv", True, "relu")]),
        (lambda m, x: torch.relu_(m.norm(m.conv(x))), [("conv", True, "relu")]),
        (lambda m, x: m.norm(F.hardswish(m.conv(x))), [("conv", False, "hardswish"), ("norm", True, "")]),
        (
            lambda m, x: m.relu(m.second(m.conv(x)).sigmoid()),
            [("conv", False, ""), ("conv", False, "sigmoid"), ("act", False, "relu")],
        ),
        (lambda m, x: F.relu(F.dropout(m.conv(x), training=m.training)), [("conv", False, "relu")]),
    ],
)
def test_norm_and_activation_join_the_layer_before(run, layers):
    assert shape_of(run) == layers


def test_nothing_is_fused_into_what_others_read():
    def run(m, x):
        y = m.conv(x)
        return m.relu(m.norm(y)) + y

    assert shape_of(run) == [("conv", False, ""), ("norm", True, "relu"), ("add", False, "")]

    def through_a_view(m, x):
        y = m.conv(x)
        return y.flatten(1).relu() + y.flatten(1)

    assert shape_of(through_a_view) == [("conv", False, ""), ("act", False, "relu"), ("add", False, "")]


def test_what_the_network_puts_out_is_read_too():
    def run(m, x):
        y = m.conv(x)
        return {"raw": y, "active": m.relu(y)}

    assert shape_of(run) == [("conv", False, ""), ("act", False, "relu")]


def test_a_size_that_is_read_hinders_no_fusing():
    def run(m, x):
        y = m.conv(x)
        return m.relu(y).view(y.shape[0], -1)

    assert shape_of(run) == [("conv", False, "relu")]


def test_residual_sum_with_its_activation():
    def run(m, x):
        y = m.relu(m.conv(x))
        z = m.second(y)
        z += y
        return m.relu(z)

    plan = traced(Graph(run), 1, 3, 8, 8)
    layers = [x for x in plan.layers if x.inputs]
    assert [(x.op, x.act, x.inputs) for x in layers] == [
        ("conv", "relu", ("input",)),
        ("conv", "", (layers[0].name,)),
        ("add", "relu", (layers[1].name, layers[0].name)),
    ]


def test_hyperparameters_are_read():
    module = nn.Sequential(nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(1, 2), groups=2), nn.MaxPool2d(3, 2))
    first, second = traced(module, 2, 4, 9, 7).layers
    assert (first.kernel, first.stride, first.groups, first.bias) == ((3, 5), (2, 1), 2, True)
    assert (first.in_channels, first.out_channels, first.in_size, first.out_size) == (4, 8, (9, 7), (5, 7))
    assert (second.op, second.kernel, second.stride, second.out_size) == ("maxpool", (3, 3), (2, 2), (2, 3))


@pytest.mark.parametrize(
    ("run", "op", "kernel", "stride"),
    [
        (lambda x: F.avg_pool2d(x, 2), "avgpool", (2, 2), (2, 2)),
        (lambda x: F.max_pool2d(x, kernel_size=3, stride=(1, 2)), "maxpool", (3, 3), (1, 2)),
        (lambda x: F.adaptive_avg_pool2d(x, 4), "avgpool", (1, 1), (1, 1)),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 1)), "pool", (1, 1), (1, 1)),
        (lambda x: x.mean((2, 3)), "pool", (1, 1), (1, 1)),
        (lambda x: F.avg_pool2d(x, 8), "pool", (1, 1), (1, 1)),
    ],
)
def test_pooling_by_function(run, op, kernel, stride):
    (layer,) = (x for x in traced(Graph(lambda m, x: run(x)), 1, 3, 8, 8).layers if x.inputs)
    assert (layer.op, layer.kernel, layer.stride) == (op, kernel, stride)


# -- what cannot be counted, or not be traced


def test_an_unknown_operation_is_named():
    module = Graph(lambda m, x: torch.fft.fft2(m.conv(x)).abs())
    cost = count(traced(module, 1, 3, 8, 8))
    assert cost.uncounted == ("fft_fft2 (fft_fft2)",)
    assert Budget.parse("1GFLOPs").check(cost) is not None


class NormAct(nn.BatchNorm2d):
    """A batch norm with its activation, as in timm."""

    def forward(self, x):
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, 1e-5)
        return F.relu(x)


def test_a_batch_norm_by_function_is_one():
    own = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU())
    other = nn.Sequential(nn.Conv2d(3, 4, 1), NormAct(4), NormAct(4))
    assert traced(other, 1, 3, 8, 8).canonical() == traced(own, 1, 3, 8, 8).canonical()
    assert_counts_agree(other, torch.zeros(1, 3, 8, 8))


def test_what_runs_again_has_multiply_adds_twice_and_parameters_once():
    again = Graph(lambda m, x: m.norm(m.second(m.norm(m.second(m.conv(x))))))
    plan = traced(again, 1, 3, 8, 8)
    names = [("second", True), ("second:2", False), ("norm", False)]
    assert [(x.name, x.own) for x in plan.layers] == [("conv", True), *names]
    cost = assert_counts_agree(again, torch.zeros(1, 3, 8, 8))
    assert (cost.value("macs"), cost.value("params")) == (64 * (27 * 4 + 16 + 16), 27 * 4 + 4 + 16 + 8)


def test_tied_weights_are_stored_once():
    tied = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    tied[2].weight = tied[0].weight
    plan = traced(tied, 1, 6)
    assert [(x.name, x.op, x.own) for x in plan.layers] == [
        ("0", "linear", True),
        ("2.bias", "parameter", True),
        ("2", "linear", False),
    ]
    assert assert_counts_agree(tied, torch.zeros(1, 6)).value("params") == 36 + 6 + 6


def test_a_module_without_parameters_may_run_again():
    pool = nn.MaxPool2d(2)
    plan = traced(nn.Sequential(pool, pool, nn.ReLU(), nn.ReLU()), 1, 3, 8, 8)
    assert [x.op for x in plan.layers] == ["maxpool", "maxpool", "act", "act"]
    assert len({x.name for x in plan.layers}) == 4 and count(plan).uncounted == ()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)])
def test_a_batch_norm_without_scale_or_statistics_stands_by_itself(norm):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), norm)
    plan = traced(module, 1, 3, 8, 8)
    assert [(x.op, x.own) for x in plan.layers if x.inputs] == [("conv", True), ("norm", False)]
    held = sum(t.bytes for x in plan.layers for t in layer_tensors(x))
    assert held == sum(t.numel() * t.itemsize for t in module.state_dict().values())
    assert_counts_agree(module, torch.zeros(1, 3, 8, 8))


def test_control_flow_that_depends_on_values_cannot_be_traced():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(Untraceable, match="Branching cannot be traced.* at .*test_trace.py:.* in forward: .*check the shape"):
        traced(Branching(), 1, 3, 8, 8)
    assert issubclass(Untraceable, NasError)


def test_an_example_that_does_not_fit_cannot_be_traced():
    with pytest.raises(Untraceable, match=r"Conv2d|Sequential.*\(1, 4, 8, 8\)"):
        traced(nn.Sequential(nn.Conv2d(3, 4, 1)), 1, 4, 8, 8)
