import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from networks import images, space_for
from torch import nn

from nas.cost.counting import count
from nas.cost.trace import trace
from nas.cost.trace_names import ACTS
from nas.errors import InvalidSetting
from nas.plan import ConvSpec, Layer, Plan, conv
from nas.runtimes.onnx_graph import onnx_bytes
from nas.runtimes.ort import runner
from nas.runtimes.plan_module import PlanModule
from nas.runtimes.runtime import Setting
from nas.seeding import numpy_rng
from search_spaces import SPACES
from search_spaces.staged import DataShape

TORCHVISION = ["resnet18", "mobilenet_v2", "mobilenet_v3_small"]
ACTIVATIONS = [*ACTS]


def foreign(name):
    """A network of torchvision without initialized weights."""
    with torch.device("meta"):
        module = getattr(torchvision.models, name)()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 1e-5  # a plan does not tell it
    return module.to_empty(device="cpu").eval()


def assert_equal_outputs(module, built, example):
    """With the weights of `built`, taken in order, `module` gives the same."""
    names, tensors = module.state_dict(), built.state_dict().values()
    module.load_state_dict(dict(zip(names, tensors, strict=True)))
    with torch.no_grad():
        wanted = module(example)
        assert wanted.std() > 0
        assert torch.allclose(built(example), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


# -- plans of networks


@pytest.mark.parametrize("name", SPACES)
def test_a_space_and_its_plans_are_one(name):
    space, rng = space_for(name, "1MFLOPs", DataShape(3, 16, 5)), numpy_rng(0, "plans")
    for arch in (space.smallest(), space.largest(), space.sample(rng), space.sample(rng)):
        plan, side = space.plan(arch), arch.choices["resolution"]
        built = PlanModule(plan)
        again = trace(built, images(1, 3, side, side))
        assert again.canonical() == plan.canonical()
        assert_equal_outputs(space.network(arch).eval(), built, images(2, 3, side, side))


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_traced_network_computes_the_same(name):
    module = foreign(name)
    plan = trace(module, images(1, 3, 64, 64))
    built = PlanModule(plan)
    assert trace(built, images(1, 3, 64, 64)).canonical() == plan.canonical()
    assert built(images(2, 3, 64, 64)).shape == (2, 1000)
    assert_equal_outputs(module, built, images(2, 3, 64, 64))


@pytest.mark.parametrize("name", ["squeezenet1_1", "densenet121"])
def test_concatenation_and_unusual_pooling_keep_costs_and_shapes(name):
    plan = trace(foreign(name), images(1, 3, 64, 64))
    again = trace(PlanModule(plan), images(1, 3, 64, 64))
    for metric in ("macs", "params", "activations", "peak_bytes"):
        assert count(again).value(metric) == count(plan).value(metric)
    shapes = [(x.op, x.in_channels, x.out_channels, x.in_size, x.out_size, x.act) for x in plan.layers]
    assert [(x.op, x.in_channels, x.out_channels, x.in_size, x.out_size, x.act) for x in again.layers] == shapes


# -- operations


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_that_a_trace_knows(activation):
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), activation(), nn.MaxPool2d(2), activation()).eval()
    built = PlanModule(trace(module, images(1, 3, 8, 8)))
    assert_equal_outputs(module, built, images(2, 3, 8, 8))


class Branches(nn.Module):
    """Shuffled, gated, normalized and concatenated, with an activation of what is read twice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2))
        self.relu, self.sigmoid = nn.ReLU(), nn.Sigmoid()
        self.norm, self.shuffle = nn.BatchNorm2d(8), nn.ChannelShuffle(4)
        self.pool, self.average = nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(3, 1, 1)
        self.tail = nn.Sequential(nn.Flatten(), nn.Linear(24 * 4 * 8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x):
        y = self.conv(x)
        z = self.relu(y)
        gated = y * self.sigmoid(self.pool(z))
        return self.tail(torch.cat([self.norm(self.shuffle(z)), gated, self.average(y)], 1))


def test_branches():
    module = Branches().eval()
    plan = trace(module, images(1, 3, 8, 8))
    assert {"shuffle", "mul", "concat", "norm", "act", "pool", "avgpool"} < {x.op for x in plan.layers}
    built = PlanModule(plan)
    assert trace(built, images(1, 3, 8, 8)).canonical() == plan.canonical()
    assert_equal_outputs(module, built, images(2, 3, 8, 8))


def test_padding_puts_half_of_the_zeros_on_each_side():
    plan = Plan(4, (8, 6), (Layer("x", "pad", ("input",), 4, 8, (8, 6), (11, 5)),))
    wanted = F.pad(images(1, 4, 8, 6), (-1, 0, 1, 2, 2, 2))
    assert torch.equal(PlanModule(plan)(images(1, 4, 8, 6)), wanted)
    run = runner(onnx_bytes(plan), Setting())
    assert torch.equal(torch.from_numpy(run(images(1, 4, 8, 6).numpy())), wanted)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer("x", "attention", ("input",), 4, 4, (8, 8), (8, 8)), r"'x' \(attention\) cannot be built .*known are conv"),
        (Layer("x", "act", ("input",), 4, 4, (8, 8), (8, 8), act="snake"), r"'x' \(act snake\) cannot be built"),
        (Layer("x", "linear", ("input",), 4, 4, (64, 1), (64, 1)), "'x' is linear over 64 positions"),
        (Layer("x", "linear", ("input",), 4, 4, (1, 1), (1, 1)), r"'x' \(linear\) does not fit what it reads"),
        (Layer("x", "conv", ("input",), 2, 4, (8, 8), (8, 8)), r"'x' \(conv\) does not fit what it reads"),
        (Layer("x", "conv", ("input",), 4, 4, (8, 8), (9, 9), (3, 3), (2, 2)), r"'x' \(conv\) maps 8 to 9 pixels"),
        (Layer("x", "concat", ("input",), 4, 8, (8, 8), (8, 8)), r"'x' \(concat\) gives \(4, 8, 8\), and the plan says"),
    ],
)
def test_what_cannot_be_built_is_refused(layer, message):
    with pytest.raises(InvalidSetting, match=message):
        PlanModule(Plan(4, (8, 8), (layer,)))


# -- weights


def test_weights_are_normal_numbers_and_the_same_each_time():
    plan = Plan(3, (8, 8), (conv("conv", "input", (3, 64), (8, 8), ConvSpec(3, bias=True, act="relu")),))
    before = torch.get_rng_state()
    first, second = PlanModule(plan).state_dict(), PlanModule(plan).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    tiny = torch.finfo(torch.float32).tiny
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert not tensor.is_floating_point() or (tensor.abs().min() >= tiny and tensor.std() > 0)
    (variance,) = (t for n, t in first.items() if n.endswith("running_var"))
    (weight,) = (t for n, t in first.items() if t.dim() == 4)
    assert variance.min() > 0
    assert weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.1)
