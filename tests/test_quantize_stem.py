"""A first convolution that reads squares of pixels as channels computes exactly the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import images
from quantize_toy import plain, rounded_by, with_integer_biases
from torch import Tensor, fx, nn

from compress.quantize import stem
from compress.quantize.convert import converted
from nas.torch_seeding import generator

aten = torch.ops.aten
SIDE = 16


def whole(*shape: int) -> Tensor:
    """Whole numbers, whose sums are exact in any order."""
    return torch.randint(-9, 10, shape, generator=generator(0, "whole")).float()


def convolution(weight: Tensor, *args: object) -> tuple[fx.GraphModule, fx.Node]:
    """A graph of one convolution, and its node."""
    graph = fx.Graph()
    x, w = graph.placeholder("x"), graph.get_attr("weight")
    node = graph.call_function(aten.conv2d.default, (x, w, None, *args))
    graph.output(node)
    root = nn.Module()
    root.weight = nn.Parameter(weight)
    return fx.GraphModule(root, graph), node


def image_node(channels: int, height: int, width: int) -> fx.Node:
    node = fx.Graph().placeholder("x")
    node.meta["val"] = torch.zeros(2, channels, height, width)
    return node


def check_that_it_computes_the_same(weight: Tensor, stride: int, padding: tuple[int, int], size: tuple[int, int]) -> None:
    x = whole(3, weight.shape[1], *size)
    expected = torch.conv2d(x, weight, None, stride, padding)
    module, node = convolution(weight, [stride, stride], list(padding))
    image = image_node(weight.shape[1], *size)
    assert stem.suits(node, weight, image)
    pads = stem.padding_of(node, image)
    stem.rearrange(module, node, tuple(weight.shape[2:]), (weight.shape[1], *size), pads)
    module.weight = nn.Parameter(stem.rearranged_weight(weight, stride, pads))
    module.recompile()
    assert module.weight.shape[1] == weight.shape[1] * stride**2
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_all_stems(kernel, stride, padding):
    check_that_it_computes_the_same(whole(6, 3, kernel, kernel), stride, (padding, padding), (SIDE, SIDE))


@pytest.mark.parametrize(
    ("shape", "stride", "padding", "size"),
    [
        ((4, 1, 3, 5), 2, (0, 2), (8, 12)),
        ((4, 4, 4, 4), 4, (0, 0), (16, 8)),
        ((4, 3, 2, 2), 2, (1, 0), (8, 8)),
        ((4, 2, 1, 1), 2, (0, 0), (8, 8)),
        ((4, 3, 8, 8), 8, (0, 0), (16, 16)),
        ((4, 3, 3, 3), 3, (1, 1), (9, 12)),
    ],
)
def test_odd_stems(shape, stride, padding, size):
    check_that_it_computes_the_same(whole(*shape), stride, padding, size)


@pytest.mark.parametrize(
    ("args", "channels", "size"),
    [
        (([1, 1], [1, 1]), 3, (8, 8)),
        (([2, 1], [1, 1]), 3, (8, 8)),
        (([2, 2], [1, 1]), 3, (9, 8)),
        (([2, 2], [1, 1], [2, 2]), 3, (8, 8)),
        (([2, 2], [1, 1], [1, 1], 3), 3, (8, 8)),
        (([2, 2], [1, 1]), 5, (8, 8)),
        ((), 3, (8, 8)),
    ],
)
def test_convolutions_that_stay(args, channels, size):
    groups = args[3] if len(args) > 3 else 1
    weight = whole(6, channels // groups, 3, 3)
    _, node = convolution(weight, *args)
    assert not stem.suits(node, weight, image_node(channels, *size))


def test_a_convolution_without_padding():
    weight, x = whole(6, 3, 3, 3), whole(2, 3, 8, 8)
    module, node = convolution(weight, [2, 2])
    pads = stem.padding_of(node, image_node(3, 8, 8))
    stem.rearrange(module, node, (3, 3), (3, 8, 8), pads)
    module.weight = nn.Parameter(stem.rearranged_weight(weight, 2, pads))
    module.recompile()
    assert torch.equal(module(x), torch.conv2d(x, weight, None, 2))


@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (1, 0, 2, 0), (0, 2, 1, 1), (3, 4, 0, 1), (2, 2)])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 0), (5, 1), (7, 2)])
def test_zeros_on_one_side_go_along(sides, kernel, padding):
    weight, x = whole(6, 3, kernel, kernel), whole(2, 3, 16, 16)
    expected = torch.conv2d(F.pad(x, sides), weight, None, 2, padding)
    module, node = convolution(weight, [2, 2], [padding, padding])
    with module.graph.inserting_before(node):
        source = module.graph.call_function(aten.constant_pad_nd.default, (node.args[0], list(sides)))
    source.args[0].meta["val"] = x
    node.args = (source, *node.args[1:])
    assert stem.suits(node, weight, source)
    pads = stem.padding_of(node, source)
    stem.rearrange(module, node, (kernel, kernel), (3, 16, 16), pads)
    module.weight = nn.Parameter(stem.rearranged_weight(weight, 2, pads))
    module.graph.eliminate_dead_code()
    module.recompile()
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("before", [[], [nn.MaxPool2d(2)], [nn.Conv2d(3, 4, 1), nn.ReLU()]])
def test_stems_of_quantized_networks(before):
    """Whatever comes before: the sides are those of what the convolution reads, not of the image."""
    channels = 4 if len(before) == 2 else 3
    network = plain(*before, nn.Conv2d(channels, 6, 3, 2, 1, bias=False), nn.Flatten(), shape=(3, 16, 16))
    x = images(4, 3, 16, 16)
    module = with_integer_biases(rounded_by(network, "w4a8", x), network)
    found = converted(module, network)
    assert any(node.target is aten.constant_pad_nd.default for node in found.graph.nodes)
    with torch.no_grad():
        assert torch.allclose(found(x), module(x), atol=1e-5)
