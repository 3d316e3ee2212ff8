"""The space of FBNet: the published macro-architecture, and operators that are slices of the largest one."""

import pytest
import torch
from networks import images, randomize_norms, space_for

from compress.agreement import agreement
from compress.export import load_format, write_format
from nas.budget import Budget
from nas.cost.counting import count
from nas.supernet.supernet import Supernet
from search_spaces import SPACES, sized
from search_spaces.fbnet import MACROS, FBNetOptions, make
from search_spaces.staged import DataShape

IMAGENET, CIFAR100 = DataShape(3, 224, 1000), DataShape(3, 32, 100)
OPERATORS = ("skip", "k3_e1_g2", "k3_e1", "k5_e1_g2", "k5_e1", "k3_e3", "k5_e3", "k3_e6", "k5_e6")
WIDTHS = ((16, 1), (24, 4), (32, 4), (64, 4), (112, 4), (184, 4), (352, 1))


def published(shape):
    return make(shape, MACROS[0], 1.0, FBNetOptions())


def network_of(space, operators):
    """The architecture with these operators, and the largest ones in the remaining layers."""
    chosen = {f"l{i}.op": op for i, op in enumerate(operators)}
    return space.architecture({**space.largest().choices, **chosen})


@pytest.fixture(scope="module")
def small():
    return make(DataShape(3, 16, 5), MACROS[3], 0.5, FBNetOptions())


def test_the_largest_macro_architecture_is_the_papers():
    space = published(IMAGENET)
    assert space.stages == tuple((*ws, stride) for ws, stride in zip(WIDTHS, (1, 2, 2, 2, 1, 2, 1), strict=True))
    assert (space.stem, space.features, space.resolutions) == ((16, 2), 1984, (224,))
    assert [c.name for c in space.choices] == ["resolution", *(f"l{i}.op" for i in range(22))]
    assert all(c.options == OPERATORS for c in space.choices[1:])
    assert space.size() == 9**22
    assert [x.out_size for x in space.plan(space.largest()).layers if x.op == "pool"] == [(1, 1)]
    assert space.plan(space.largest()).layers[-3].in_size == (7, 7)


def test_fbnet_c_counts_as_elsewhere():
    """5,572,200 parameters and 384,960,160 multiply-adds have been counted in the FBNet-C of timm 1.0, `fbnetc_100`."""
    stages = "k3_e1|k3_e6 skip k3_e1 k3_e1|k5_e6 k5_e3 k5_e6 k3_e6|k5_e6 k5_e3 k5_e6 k5_e6|k5_e6 k5_e6 k5_e6 k5_e3"
    operators = [*stages.replace("|", " ").split(), *["k5_e6"] * 4, "k3_e6"]
    space = published(IMAGENET)
    cost = count(space.plan(network_of(space, operators)))
    assert (cost.value("params"), cost.value("macs")) == (5_572_200, 384_960_160)


def test_on_small_images_it_is_the_cifar_form_of_hw_nas_bench():
    space = published(CIFAR100)
    assert space.stages == tuple((*ws, stride) for ws, stride in zip(WIDTHS, (1, 1, 2, 2, 1, 2, 1), strict=True))
    assert (space.stem, space.features) == ((16, 1), 1504)


def test_widths_are_multiplied():
    space = make(IMAGENET, MACROS[0], 0.5, FBNetOptions())
    assert [w for w, _, _ in space.stages] == [16, 16, 16, 32, 56, 96, 176]
    assert (space.stem, space.features) == ((16, 2), 992)


def test_a_chosen_width_holds_against_any_budget():
    budgets = [Budget.parse("3MFLOPs")]
    assert sized(SPACES["fbnet"], IMAGENET, budgets, FBNetOptions(width=1.0)) == published(IMAGENET)
    half = sized(SPACES["fbnet"], IMAGENET, budgets, FBNetOptions(width=0.5, resolutions=(224, 192)))
    assert half == make(IMAGENET, MACROS[0], 0.5, FBNetOptions(resolutions=(192, 224)))


def test_a_budget_in_ms_leaves_the_published_form():
    assert sized(SPACES["fbnet"], CIFAR100, [Budget.parse("15ms@pixel3")], FBNetOptions()) == published(CIFAR100)


def test_skip_leaves_out_a_layer_that_keeps_the_shape(small):
    """It equals a residual branch that adds nothing."""
    with_layer, without = network_of(small, ()), network_of(small, ("k5_e6", "k5_e6", "skip"))
    full, skipped = (randomize_norms(small.network(a)).eval() for a in (with_layer, without))
    torch.nn.init.zeros_(full.stages[1].get_submodule("2").project.norm.weight)
    torch.nn.init.zeros_(full.stages[1].get_submodule("2").project.norm.bias)
    skipped.load_state_dict({n: t for n, t in full.state_dict().items() if not n.startswith("stages.1.2.")})
    x = images(4, 3, 16, 16)
    assert torch.equal(full(x), skipped(x))


def test_skip_is_the_projection_alone_where_the_shape_changes(small):
    net, skip = Supernet(small, 0), network_of(small, ("k5_e6", "skip"))
    layer = net.extract(skip).stages[1].get_submodule("1")
    full = net.shared.stages[1].get_submodule("1").project
    before, stride = small.stages[0][0], small.stages[1][2]
    assert torch.equal(layer.project.conv.weight, full.conv.weight[:, :before])
    assert layer.project.conv.stride == (stride, stride) and layer.project.act is not None
    changing = [
        f"stages.{stage}.{i}.project" for i, (stage, *shape) in enumerate(small._layers) if shape != [shape[1], shape[1], 1]
    ]
    assert [x.name for x in small.plan(small.smallest()).layers if x.name.endswith(".project")] == changing


def test_groups_exchange_channels_after_the_expansion(small):
    net, grouped = Supernet(small, 0), network_of(small, ("k5_e6", "k5_e6", "k5_e1_g2"))
    randomize_norms(net.shared)
    layer = net.extract(grouped).stages[1].get_submodule("2").train()
    full, width = net.shared.stages[1].get_submodule("2"), small.stages[1][0]
    assert torch.equal(layer.expand.conv.weight, full.expand.conv.weight[:width, : width // 2])
    assert torch.equal(layer.project.conv.weight, full.project.conv.weight[:, : width // 2])
    x = images(2, width, 8, 8)
    hidden = layer.expand(x)
    shuffled = torch.stack([hidden[:, : width // 2], hidden[:, width // 2 :]], 2).flatten(1, 2)
    assert torch.equal(layer(x), x + layer.project(layer.depthwise(shuffled)))


def test_it_exports(tmp_path):
    space = make(DataShape(3, 8, 5), MACROS[-1], 1.0, FBNetOptions())
    arch = network_of(space, ("k3_e1_g2", "skip", "k5_e1_g2"))
    module, x = randomize_norms(space.network(arch)).eval(), images(6, 3, 8, 8)
    write_format("onnx", module, x[:1], tmp_path / "model.onnx")
    assert agreement(module, load_format("onnx", tmp_path / "model.onnx"), x).max_difference < 1e-4


def test_sizing_keeps_the_sides_of_the_images_where_it_can():
    assert space_for("fbnet", "100kparams", DataShape(3, 32, 10)).resolutions == (32,)
