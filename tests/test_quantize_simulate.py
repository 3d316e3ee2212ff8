"""Simulated networks: quantizers against their formulas, and schemes as users write them."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from networks import images
from quantize_toy import mini, pictures, plain, ranges_of, rounded_by
from torch import nn

from compress.quantize.formats import FLOAT, FORMATS
from compress.quantize.quantizer import LEAST_SCALE, FloatQuantizer, IntQuantizer, PlainQuantizer
from compress.quantize.scheme import Scheme, kept_layers, read_precision, uniform
from compress.quantize.simulate import fit_weight, point_quantizer_of, simulated, weight_of, weight_quantizer_of
from nas.errors import InvalidSetting
from nas.torch_seeding import generator

INTEGERS = [name for name, number in FORMATS.items() if number.dtype is None]
FLOATS = {"fp8-e4m3": torch.float8_e4m3fn, "fp8-e5m2": torch.float8_e5m2}


def quantizer_of(limits, channels=None, scales=(0.1,), zero=0.0):
    quantizer = IntQuantizer(limits, channels)
    with torch.no_grad():
        quantizer.scale.copy_(torch.tensor(scales))
        quantizer.zero_point.fill_(zero)
    return quantizer


def noise(*shape):
    return torch.randn(shape, generator=generator(0, "noise"))


# -- integers


@pytest.mark.parametrize("bits", INTEGERS)
def test_activations_are_rounded_as_the_formula_says(bits):
    low, high = FORMATS[bits].unsigned
    zero = high // 3
    quantizer, x = quantizer_of((low, high), scales=(3 / high,), zero=zero), noise(2, 3, 4, 4)
    scale = quantizer.scale.detach()
    expected = ((x / scale).round() + zero).clamp(low, high).sub(zero) * scale
    assert torch.allclose(quantizer(x), expected, atol=1e-6) and torch.equal(PlainQuantizer(quantizer)(x), expected)
    assert quantizer(x).unique().numel() <= 1 << FORMATS[bits].bits


@pytest.mark.parametrize("bits", INTEGERS)
def test_weights_are_rounded_by_channel(bits):
    low, high = FORMATS[bits].signed
    scales = [2.0 / high, 0.5 / high, LEAST_SCALE]
    quantizer, weight = quantizer_of((low, high), 3, scales), noise(3, 2, 3, 3)
    scale = torch.tensor(scales).reshape(3, 1, 1, 1)
    expected = (weight / scale).round().clamp(low, high) * scale
    assert torch.allclose(quantizer(weight), expected, atol=1e-6)
    assert torch.allclose(PlainQuantizer(quantizer)(weight), expected, atol=1e-6)


@pytest.mark.parametrize("zero", [0.0, 85.0])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_without_gradients_the_same_values_are_given(zero, memory_format):
    quantizer, x = quantizer_of((0, 255), scales=(3 / 255,), zero=zero), noise(2, 8, 5, 5).to(memory_format=memory_format)
    with_gradients, before = quantizer(x), x.clone()
    with torch.no_grad():
        assert torch.equal(quantizer(x), with_gradients) and torch.equal(x, before)
    weights = quantizer_of((-127, 127), 3, [0.02, 0.01, 0.005])
    rounded, weight = weights(noise(3, 4, 3, 3)), noise(3, 4, 3, 3)
    with torch.no_grad():
        assert torch.equal(weights(weight), rounded)


def lsq_gradient(x, scale, zero, limits):
    """Of the rounded values with respect to the scale (Esser et al. 2020, equation 3), without its factor.

    Values that are rounded to a limit count as between the limits, as in torch.
    """
    low, high = limits[0] - zero, limits[1] - zero
    ratio = x / scale
    rounded = ratio.round()
    return torch.where(rounded < low, low, torch.where(rounded > high, high, rounded - ratio))


@pytest.mark.parametrize(("limits", "zero"), [((0, 15), 5.0), ((0, 255), 0.0), ((-8, 7), 0.0)])
def test_gradients_of_one_scale_are_those_of_lsq(limits, zero):
    quantizer = quantizer_of(limits, scales=(0.11,), zero=zero)
    x, upstream = noise(4, 3, 5).requires_grad_(), noise(3, 4, 5).transpose(0, 1)
    quantizer(x).backward(upstream)
    expected = (lsq_gradient(x.detach(), 0.11, zero, limits) * upstream).sum() / sqrt(x.numel() * limits[1])
    assert torch.allclose(quantizer.scale.grad, expected, rtol=1e-4)
    inside = (x / 0.11 >= limits[0] - zero - 0.5) & (x / 0.11 <= limits[1] - zero + 0.5)
    assert inside.any() and not inside.all()
    assert torch.equal(x.grad, torch.where(inside, upstream, 0))


def test_gradients_of_scales_of_channels_are_those_of_lsq():
    scales = [0.2, 0.05, 0.4]
    quantizer, weight = quantizer_of((-8, 7), 3, scales), noise(3, 2, 3, 3)
    quantizer(weight).sum().backward()
    expected = [lsq_gradient(w, s, 0.0, (-8, 7)).sum() / sqrt(w.numel() * 7) for w, s in zip(weight, scales, strict=True)]
    assert torch.allclose(quantizer.scale.grad, torch.stack(expected), rtol=1e-4)


def test_a_scale_that_training_pushed_below_zero_still_rounds():
    quantizer = quantizer_of((-127, 127), 2, (-0.3, 0.1))
    assert quantizer.step.tolist() == pytest.approx([LEAST_SCALE, 0.1])
    assert quantizer(torch.tensor([[1.0], [1.02]])).flatten().tolist() == pytest.approx([127 * LEAST_SCALE, 1.0])


# -- floating-point formats


@pytest.mark.parametrize("name", FLOATS)
def test_floats_are_rounded_as_casts_do(name):
    dtype, x = FLOATS[name], 3 * noise(2, 5, 4)
    quantizer = FloatQuantizer(dtype)
    assert torch.equal(quantizer(x), x.to(dtype).float())
    quantizer.set_range(x.min()[None], x.max()[None], symmetric=False)
    scale = x.abs().max() / torch.finfo(dtype).max
    assert torch.equal(quantizer(x), (x / scale).to(dtype).float() * scale)
    assert quantizer(x).abs().max() == pytest.approx(float(x.abs().max()))
    channels = FloatQuantizer(dtype, 2)
    largest = x.flatten(1).abs().amax(1)
    channels.set_range(-largest, largest, symmetric=True)
    for one, rounded, limit in zip(x, channels(x), largest, strict=True):
        scale = limit / torch.finfo(dtype).max
        assert torch.equal(rounded, (one / scale).to(dtype).float() * scale)


def test_gradients_pass_floating_point_rounding():
    x = noise(3, 4).requires_grad_()
    FloatQuantizer(torch.float8_e4m3fn)(x).backward(upstream := noise(4, 3).T)
    assert torch.equal(x.grad, upstream)


# -- networks


def test_a_network_in_fp32_is_not_changed():
    network, x = mini(), pictures()
    module = simulated(network, uniform(network, FLOAT, FLOAT))
    assert torch.equal(module(x), network.module(x))
    assert not list(module.weight_quantizers.children()) and not list(module.point_quantizers.children())


@pytest.mark.parametrize("precision", ["w2a8", "w3a8", "w4a4", "int8"])
def test_weights_have_few_values(precision):
    network, x = mini(), pictures()
    module = rounded_by(network, precision, x)
    for layer in network.layers:
        weight = weight_of(module, network, layer.node)
        rounded = weight_quantizer_of(module, layer.node)(weight)
        limit = 1 << FORMATS[read_precision(precision)[0]].bits
        assert all(channel.unique().numel() <= limit for channel in rounded)
        assert torch.equal(weight, weight_of(network.module, network, layer.node))
    assert not torch.equal(module(x), network.module(x))


def test_a_network_is_its_layers_rounded_one_by_one():
    network = plain(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    x = images(6, 3, 8, 8)
    module = rounded_by(network, "w4a8", x)
    (conv, linear), (image, relu, pool) = network.layers, (point_quantizer_of(module, p) for p in network.points)
    weights = [weight_quantizer_of(module, y.node)(weight_of(module, network, y.node)) for y in (conv, linear)]
    inner = relu(torch.conv2d(image(x), weights[0]).relu())
    expected = torch.nn.functional.linear(pool(inner.mean((2, 3))), weights[1], network.module._modules["4"].bias)
    assert torch.allclose(module(x), expected, atol=1e-6)


def test_scales_of_weights_clip_where_that_loses_less():
    weight = noise(2, 400)
    weight[1, 0] = 30.0
    quantizer, widest = IntQuantizer((-8, 7), 2), IntQuantizer((-8, 7), 2)
    fit_weight(quantizer, weight)
    limit = weight.abs().amax(1)
    widest.set_range(-limit, limit, symmetric=True)
    fitted, plainly = ((q(weight) - weight).square().sum(1) for q in (quantizer, widest))
    assert (fitted < plainly).all() and (quantizer.scale < widest.scale).all()
    fit_weight(quantizer, torch.zeros(2, 400))
    assert torch.equal(quantizer(torch.zeros(2, 400)), torch.zeros(2, 400)) and (quantizer.scale > 0).all()


def test_a_point_has_the_widest_format_of_its_readers():
    network, x = mini(), pictures(4)
    # what the stem puts out is read by the depthwise layer and by the sum
    module = simulated(network, uniform(network, "8", "8", {"depthwise.0": FLOAT}), ranges_of(network, x))
    assert point_quantizer_of(module, "stem_2_hardtanh") is not None, "a rounded layer puts it out"
    assert weight_quantizer_of(module, "depthwise_0") is None
    first = simulated(network, uniform(network, "8", "8", {"stem.0": FLOAT}), ranges_of(network, x))
    assert point_quantizer_of(first, "x") is None, "only the first layer reads the image"
    assert point_quantizer_of(module, "relu").high == 255
    mixed = uniform(network, "8", "4", {"head": "6"})
    assert [mixed.of_point(network, point) for point in network.points] == ["4", "4", "4", "4", "4", "6"]


# -- schemes


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("int8", ("8", "8")),
        ("int4", ("4", "4")),
        ("8", ("8", "8")),
        ("w4a8", ("4", "8")),
        ("w16a16", ("16", "16")),
        ("fp8-e4m3", ("fp8-e4m3", "fp8-e4m3")),
        ("wfp8-e5m2a8", ("fp8-e5m2", "8")),
        ("w4afp8-e4m3", ("4", "fp8-e4m3")),
        ("w8afp32", ("8", "fp32")),
    ],
)
def test_precisions(text, formats):
    assert read_precision(text) == formats


@pytest.mark.parametrize(
    "text", ["", "int5", "int", "intfp8-e4m3", "fp32", "bf16", "w4", "a8", "w5a8", "w4a8x", "W4A8", "nonsense"]
)
def test_precisions_that_are_none(text):
    with pytest.raises(InvalidSetting, match=f"--precision '{text}' is not known; choose int8, another format"):
        read_precision(text)


def test_layers_that_are_kept():
    network = mini()
    assert kept_layers(network, []) == {}
    kept = kept_layers(network, ["first", "last=4", "pointwise.0=fp8-e4m3"])
    assert kept == {"stem.0": FLOAT, "head": "4", "pointwise.0": "fp8-e4m3"}
    scheme = uniform(network, "4", "8", kept)
    assert scheme.weights == {"stem.0": FLOAT, "depthwise.0": "4", "pointwise.0": "fp8-e4m3", "head": "4"}
    assert scheme.inputs == {"stem.0": FLOAT, "depthwise.0": "8", "pointwise.0": "fp8-e4m3", "head": "4"}
    assert Scheme(**scheme.to_json()) == scheme


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("middle", "--keep 'middle': there is no layer 'middle'; choose first, last, or of depthwise.0, head"),
        ("head=5", "'5' is no number format"),
        ("stem", "there is no layer 'stem'"),
    ],
)
def test_layers_that_cannot_be_kept(text, message):
    with pytest.raises(InvalidSetting, match=message):
        kept_layers(mini(), [text])


def test_schemes_of_unknown_formats():
    with pytest.raises(InvalidSetting, match="number format 'int8' is not known"):
        Scheme({"head": "int8"}, {"head": "8"})
