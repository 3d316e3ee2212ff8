"""Channels between convolutions of integers are filled up with zeros: the same sums, in numbers that kernels like."""

import pytest
import torch
from quantize_toy import conv_bn, pictures, plain, rounded_by, with_integer_biases
from torch import nn

from compress.quantize import convert
from compress.quantize.convert import converted
from compress.quantize.formats import FLOAT


def network(width: int, *between: nn.Module):
    return plain(*conv_bn(3, width), *between, *conv_bn(width, 7), nn.ReLU(), *conv_bn(7, 8), shape=(3, 16, 16))


def widths(module) -> list[tuple[int, int]]:
    """Outputs and inputs of the stored weights, in order."""
    return [tuple(tensor.shape[:2]) for name, tensor in module.named_buffers() if name.endswith("_weight_integers")]


@pytest.mark.parametrize("precision", ["int8", "w4a4"])
@pytest.mark.parametrize("between", [[nn.ReLU()], [nn.ReLU6()], []])
def test_filled_up_channels_change_nothing(monkeypatch, precision, between):
    net, x = network(6, *between), pictures()
    module = with_integer_biases(rounded_by(net, precision, x), net)
    filled = converted(module, net)
    monkeypatch.setattr(convert, "pad_channels", lambda module: None)
    plainly = converted(module, net)
    assert widths(plainly) == [(6, 3), (7, 6), (8, 7)] and widths(filled) == [(8, 3), (8, 8), (8, 8)]
    with torch.no_grad():
        assert torch.allclose(filled(x), plainly(x), atol=1e-6) and (plainly(x) != 0).any()


def test_scales_of_biases_stay_those_of_the_sums():
    """Runtimes do not fuse a layer where one scale is off, however little its channel says."""
    net, x = network(6, nn.ReLU()), pictures()
    scales = dict(converted(rounded_by(net, "int8", x), net).named_buffers())
    for layer in net.layers:
        weights, biases = (scales[f"{layer.node}_{kind}_scales"] for kind in ("weight", "bias"))
        assert torch.allclose(biases / weights, (biases / weights)[0].expand(len(biases)), rtol=1e-6)


def test_what_others_read_or_what_stays_in_floats_is_left_alone():
    x = pictures()
    net = network(6, nn.ReLU())
    second = net.layers[1].name
    kept = converted(rounded_by(net, "int8", x, {second: FLOAT}), net)
    assert widths(kept) == [(6, 3), (8, 7)]
    each = plain(*conv_bn(3, 6), nn.ReLU(), *conv_bn(6, 6, groups=6), nn.ReLU(), *conv_bn(6, 8), shape=(3, 16, 16))
    assert widths(converted(rounded_by(each, "int8", x), each)) == [(6, 3), (6, 1), (8, 6)]
