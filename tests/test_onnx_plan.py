import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
import torchvision
from networks import randomize_norms

from compress.export import write_onnx
from nas.cost.counting import count
from nas.cost.onnx_plan import onnx_plan
from nas.cost.trace import trace
from nas.errors import InvalidSetting
from nas.onnx_io import to_bytes
from nas.onnx_values import Graph, Node
from nas.seeding import numpy_rng
from search_spaces import SPACES
from search_spaces.fbnet import FBNetOptions
from search_spaces.mobilenet import MobileNetOptions
from search_spaces.resnet import ResNetOptions
from search_spaces.staged import DataShape


def folded(plan):
    """The plan with its batch norms folded: scale and shift of a channel become one bias."""
    return replace(plan, layers=tuple(replace(x, norm=False, bias=x.bias or x.norm) for x in plan.layers))


def exported(module, path, *shape, **options):
    """The plan of a module that the exporter of torch wrote."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, for their developers
        torch.onnx.export(module.eval(), (torch.zeros(shape),), str(path), verbose=False, **options)
    return onnx_plan(path)


def by_hand(tmp_path, *nodes, shape=(1, 3, 8, 8), outputs=("y",), **tensors):
    path = tmp_path / "hand.onnx"
    floats = {name: np.zeros(t, np.float32) if isinstance(t, tuple) else t for name, t in tensors.items()}
    path.write_bytes(to_bytes(Graph(nodes, floats, {"x": shape}, outputs)))
    return onnx_plan(path)


def ops(plan):
    return [(x.op, x.act) for x in plan.layers]


# -- what we export


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet", MobileNetOptions(squeeze_excite=True)),
        ("fbnet", FBNetOptions()),
        ("resnet", ResNetOptions()),
        ("resnet", ResNetOptions(block="bottleneck")),
    ],
)
def test_an_exported_network_has_the_plan_of_its_space(name, options, tmp_path):
    family = SPACES[name]
    space = family.make(DataShape(3, 16, 10), family.macros[2], 0.25, options)
    arch = space.sample(numpy_rng(0, "onnx plan"))
    module = randomize_norms(space.network(arch)).eval()  # the exporter leaves out a bias of zeros
    side = arch.choices["resolution"]
    write_onnx(module, torch.zeros(1, 3, side, side), tmp_path / "model.onnx")
    found, plan = onnx_plan(tmp_path / "model.onnx"), space.plan(arch)
    # the layers that are named after their weights have the names of the space
    assert {x.name for x in found.layers} >= {x.name for x in plan.layers if x.op in ("conv", "linear")}
    assert found.canonical() == folded(plan).canonical()
    assert count(found).value("macs") == count(plan).value("macs")
    normed = sum(x.out_channels for x in plan.layers if x.norm)
    assert count(found).value("params") == count(plan).value("params") - normed
    assert count(found).value("peak_bytes") == count(plan).value("peak_bytes")


# -- what others export


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [("resnet18", True), ("resnet18", False), ("mobilenet_v2", False), ("mobilenet_v3_small", False), ("squeezenet1_1", False)],
)
def test_torchvision_networks_cost_what_their_modules_cost(name, dynamo, tmp_path):
    module = randomize_norms(getattr(torchvision.models, name)())
    found = exported(module, tmp_path / "model.onnx", 1, 3, 64, 64, dynamo=dynamo)
    plan = folded(trace(module, torch.zeros(1, 3, 64, 64)))
    assert found.canonical() == plan.canonical()
    names = count(plan).metrics.keys() - {"size_bytes"}  # which depends on the names of the layers
    assert {n: count(found).value(n) for n in names} == {n: count(plan).value(n) for n in names}


def test_silu_is_one_activation(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Conv2d(4, 4, 1), nn.Hardswish())
    assert ops(exported(module, tmp_path / "m.onnx", 1, 3, 8, 8, dynamo=False)) == [("conv", "silu"), ("conv", "hardswish")]


def test_tokens(tmp_path):
    class Tokens(nn.Module):
        """Patches with a position each, attention spelled out, a layer norm and a classifier of the mean."""

        def __init__(self):
            super().__init__()
            self.patch, self.norm = nn.Conv2d(3, 6, 4, stride=4), nn.LayerNorm(6)
            self.position, self.inner = nn.Parameter(torch.ones(1, 4, 6)), nn.Linear(6, 6)

        def forward(self, x):
            y = self.patch(x).flatten(2).transpose(1, 2) + self.position
            y = (y @ y.transpose(1, 2) * 0.4).softmax(-1) @ y
            return F.gelu(self.inner(self.norm(y))).mean(1)

    plan = exported(Tokens(), tmp_path / "m.onnx", 1, 3, 8, 8, dynamo=True)
    assert count(plan).uncounted == ()
    expected = count(trace(Tokens(), torch.zeros(1, 3, 8, 8)))
    assert {n: count(plan).value(n) for n in ("macs", "params")} == {n: expected.value(n) for n in ("macs", "params")}
    assert ops(plan)[-2:] == [("linear", "gelu"), ("pool", "")]


# -- operators one by one


def test_a_batch_norm_that_was_not_folded(tmp_path):
    norm = {n: (4,) for n in ("scale", "shift", "mean", "var")}
    nodes = [
        Node("Conv", ("x", "w"), ("c",)),
        Node("BatchNormalization", ("c", *norm), ("n",)),
        Node("Relu", ("n",), ("r",)),
        Node("BatchNormalization", ("r", *norm), ("y",)),
    ]
    first, second = by_hand(tmp_path, *nodes, w=(4, 3, 1, 1), **norm).layers
    assert (first.op, first.norm, first.act, first.bias) == ("conv", True, "relu", False)
    assert (second.op, second.norm, second.inputs) == ("norm", True, (first.name,))


def test_nothing_is_fused_into_what_others_read(tmp_path):
    nodes = [Node("Conv", ("x", "w"), ("c",)), Node("Relu", ("c",), ("r",)), Node("Add", ("c", "r"), ("y",))]
    assert ops(by_hand(tmp_path, *nodes, w=(4, 3, 1, 1))) == [("conv", ""), ("act", "relu"), ("add", "")]
    assert ops(by_hand(tmp_path, *nodes[:2], w=(4, 3, 1, 1), outputs=("c", "r"))) == [("conv", ""), ("act", "relu")]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [((0, 6), ("conv", "relu6")), ((0,), ("conv", "relu")), ((-1, 1), ("conv", "hardtanh")), ((0, 5), ("elementwise", ""))],
)
def test_clips(tmp_path, bounds, expected):
    limits = {f"limit{i}": np.array(value, np.float32) for i, value in enumerate(bounds)}
    nodes = [Node("Conv", ("x", "w"), ("c",)), Node("Clip", ("c", *limits), ("y",))]
    assert ops(by_hand(tmp_path, *nodes, w=(4, 3, 1, 1), **limits))[-1] == expected


def test_products_with_constants_are_linear_layers(tmp_path):
    nodes = [Node("MatMul", ("x", "w"), ("m",)), Node("Add", ("b", "m"), ("s",)), Node("Relu", ("s",), ("y",))]
    (layer,) = by_hand(tmp_path, *nodes, shape=(1, 5, 6), w=(6, 7), b=(7,)).layers
    assert (layer.op, layer.in_channels, layer.out_channels, layer.out_size) == ("linear", 6, 7, (5, 1))
    assert (layer.bias, layer.act) == (True, "relu")
    gemm = Node("Gemm", ("x", "w"), ("y",), {"transB": 1})
    (layer,) = by_hand(tmp_path, gemm, shape=(1, 6), w=(7, 6)).layers
    assert (layer.op, layer.in_channels, layer.out_channels, layer.bias) == ("linear", 6, 7, False)


def test_windows_and_groups_are_read(tmp_path):
    conv = {"kernel_shape": (3, 5), "strides": (2, 1), "pads": (1, 2, 1, 2), "group": 3}
    pool = {"kernel_shape": (2, 2), "strides": (2, 2)}
    nodes = [Node("Conv", ("x", "w", "b"), ("c",), conv), Node("AveragePool", ("c",), ("y",), pool)]
    first, second = by_hand(tmp_path, *nodes, w=(6, 1, 3, 5), b=(6,)).layers
    assert (first.kernel, first.stride, first.groups, first.bias, first.out_size) == ((3, 5), (2, 1), 3, True, (4, 8))
    assert (second.op, second.kernel, second.stride, second.out_size) == ("avgpool", (2, 2), (2, 2), (2, 4))


def test_an_unknown_operator_is_named(tmp_path):
    cost = count(by_hand(tmp_path, Node("Conv", ("x", "w"), ("c",)), Node("Softsign", ("c",), ("y",)), w=(4, 3, 1, 1)))
    assert cost.uncounted == ("Softsign (y)",) and cost.value("macs") == 4 * 3 * 64


def test_a_weight_that_two_layers_share_is_not_counted_twice(tmp_path):
    nodes = [Node("Conv", ("x", "w"), ("c",)), Node("Conv", ("c", "w"), ("y",))]
    assert count(by_hand(tmp_path, *nodes, w=(3, 3, 1, 1))).uncounted == ("shared Conv (y)",)


def test_a_batch_of_its_own_is_refused(tmp_path):
    with pytest.raises(InvalidSetting, match=r"hand.onnx' reads \(2, 3, 8, 8\); expected one image"):
        by_hand(tmp_path, Node("Relu", ("x",), ("y",)), shape=(2, 3, 8, 8))


def test_a_shape_that_nobody_knows_is_refused(tmp_path):
    nodes = [Node("NonZero", ("x",), ("n",)), Node("Relu", ("n",), ("y",))]
    with pytest.raises(InvalidSetting, match="the shape of 'n', which NonZero puts out, is not known"):
        by_hand(tmp_path, *nodes)
