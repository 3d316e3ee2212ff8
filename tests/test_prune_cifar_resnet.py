import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
import torch_pruning as tp
from networks import SHARED, images, randomize_norms
from typer.testing import CliRunner

from compress.export import FORMATS, load_format, write_format
from compress.prune.cifar_resnet import CIFAR_RESNETS, MEAN, STD, CifarResNet, PaddedShortcut
from compress.prune.sources import load_into
from nas import weights
from nas.cli.main import app
from nas.cost.counting import count
from nas.cost.onnx_plan import onnx_plan
from nas.cost.recount import recount
from nas.cost.trace import trace
from nas.runtimes.onnx_graph import onnx_bytes
from nas.runtimes.plan_module import PlanModule

SHAPE = (1, 3, 32, 32)
WEIGHTS = {f"cifar-resnet{depth}": SHARED / "weights" / f"cifar10_resnet{depth}.safetensors" for depth in (20, 56)}
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")


@pytest.fixture(scope="module")
def small():
    """Three blocks, with random norms."""
    return randomize_norms(CifarResNet(8)).eval()


@pytest.fixture(scope="module")
def plan(small):
    return trace(small, torch.zeros(SHAPE))


# -- the networks


@pytest.mark.parametrize(
    ("name", "params", "macs"), [("cifar-resnet20", 269_722, 40_551_040), ("cifar-resnet56", 853_018, 125_485_696)]
)
def test_published_sizes_by_trace_and_by_fvcore(name, params, macs):
    module = CIFAR_RESNETS[name]()
    counted, planned = recount(module, torch.zeros(SHAPE)), count(trace(module, torch.zeros(SHAPE)))
    assert counted.uncounted == planned.uncounted == ()
    for metric, expected in {"params": params, "macs": macs}.items():
        assert counted.value(metric) == planned.value(metric) == expected


def test_all_depths():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in make(classes=7).parameters()) for make in CIFAR_RESNETS.values()]
    assert list(CIFAR_RESNETS) == [f"cifar-resnet{depth}" for depth in (20, 32, 44, 56, 110)]
    blocks = 2 * 9 * (16**2 + 32**2 + 64**2) + 4 * (16 + 32 + 64)  # one more in each stage
    assert [b - a for a, b in pairwise(sizes)] == [2 * blocks, 2 * blocks, 2 * blocks, 9 * blocks]


def test_the_shortcut_is_every_second_pixel_between_zeros():
    x = images(2, 4, 6, 8)
    assert torch.equal(PaddedShortcut(3)(x), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3)))
    assert not list(PaddedShortcut(3).parameters())


@needs_shared
@pytest.mark.parametrize("name", WEIGHTS)
def test_published_weights_have_our_names_and_classify(name):
    module = CIFAR_RESNETS[name]().eval()
    assert module.state_dict().keys() == weights.load(WEIGHTS[name]).keys()
    load_into(module, WEIGHTS[name])
    with np.load(SHARED / "cifar10.npz") as data:
        pixels, labels = torch.from_numpy(data["test_images"][:500]), torch.from_numpy(data["test_labels"][:500])
    x = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        found = torch.cat([module(part).argmax(1) for part in x.split(100)])
    assert (found == labels).float().mean() > 0.88


# -- cutting


def test_inner_channels_are_a_group_of_their_own_and_can_be_cut():
    module = randomize_norms(CifarResNet(14)).eval()
    block, x = module.layer2[0], images(2, 3, 32, 32)
    for part in (block.bn1.weight, block.bn1.bias):  # what is cut is zero behind the activation: nothing changes
        part.data[::4] = 0
    with torch.no_grad():
        before = module(x)
    graph = tp.DependencyGraph().build_dependency(module, torch.zeros(SHAPE))
    group = graph.get_pruning_group(block.conv1, tp.prune_conv_out_channels, list(range(0, 32, 4)))
    layers = {dep.target.module for dep, _ in group if isinstance(dep.target.module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)}
    assert layers == {block.conv1, block.bn1, block.conv2}
    group.prune()
    assert (block.conv1.out_channels, block.conv2.in_channels, block.conv2.out_channels) == (24, 24, 32)
    with torch.no_grad():
        assert torch.allclose(module(x), before, rtol=1e-5, atol=1e-5)


# -- plans, files, the command line


def test_a_plan_is_built_again_with_the_same_outputs(small, plan):
    built, x = PlanModule(plan), images(2, 3, 32, 32)
    assert trace(built, torch.zeros(SHAPE)).canonical() == plan.canonical()
    built.load_state_dict(dict(zip(built.state_dict(), small.state_dict().values(), strict=True)))
    with torch.no_grad():
        assert torch.allclose(built(x), small(x), rtol=1e-4, atol=1e-4)


def test_a_plan_is_written_as_the_graph_that_the_exporter_writes(small, plan, tmp_path):
    (tmp_path / "plan.onnx").write_bytes(onnx_bytes(plan))
    write_format("onnx", small, torch.zeros(SHAPE), tmp_path / "module.onnx")
    written, exported = (onnx_plan(tmp_path / name).canonical() for name in ("plan.onnx", "module.onnx"))
    assert [(x.op, x.inputs, x.in_size, x.out_channels) for x in written.layers] == [
        (x.op, x.inputs, x.in_size, x.out_channels) for x in exported.layers
    ]
    assert count(exported).value("macs") == count(plan).value("macs")


@pytest.mark.parametrize("name", FORMATS)
def test_exported_files_give_the_same_logits(name, small, tmp_path):
    path, x = tmp_path / f"model{FORMATS[name].suffix}", images(3, 3, 32, 32)
    write_format(name, small, torch.zeros(SHAPE), path)
    with torch.no_grad():
        assert torch.allclose(load_format(name, path)(x), small(x), rtol=1e-4, atol=1e-4)


def nas(*args):
    return CliRunner().invoke(app, ["cost", *args])


def test_the_command_line_knows_them_at_their_own_size():
    small, large = json.loads(nas("cifar-resnet20", "--json").stdout)["networks"], nas("cifar-resnet20", "--shape", "3x64x64")
    assert small[0]["input"] == [3, 32, 32] and small[0]["metrics"]["macs"] == 40_551_040
    assert large.exit_code == 0 and "3x64x64" in large.stdout


def test_another_depth_is_refused_with_those_there_are():
    result = nas("cifar-resnet50")
    assert result.exit_code == 2
    assert "'cifar-resnet50' was not understood (there are cifar-resnet20, cifar-resnet32" in result.stderr
