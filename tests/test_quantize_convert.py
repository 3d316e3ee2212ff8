"""Networks of integers compute what was simulated: in torch, in onnxruntime, and after they were stored."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from networks import images
from quantize_toy import Mini, mini, pictures, plain, ranges_of, ready, rounded_by, with_integer_biases
from torch import Tensor, fx, nn

from compress.export import load_onnx, write_onnx
from compress.quantize.convert import converted
from compress.quantize.formats import FLOAT
from compress.quantize.graph import network_of
from compress.quantize.saved import load_simulated, points_of, reconverted, save_simulated
from compress.quantize.scheme import read_precision, uniform
from compress.quantize.simulate import point_quantizer_of, simulated
from compress.stored import load_weights, save_weights
from nas.errors import CorruptRun

aten, ops = torch.ops.aten, torch.ops.quantized_decomposed


def targets(module: fx.GraphModule) -> Counter:
    return Counter(node.target for node in module.graph.nodes)


@pytest.fixture(scope="module")
def network():
    return mini()


# -- as simulated


@pytest.mark.parametrize(
    "precision", ["int8", "w4a8", "w4a4", "w2a8", "w3a6", "w8a2", "w16a16", "w8a16", "fp8-e4m3", "w4afp8-e5m2"]
)
def test_integers_compute_what_was_simulated(network, precision):
    x = pictures()
    module = with_integer_biases(rounded_by(network, precision, x), network)
    with torch.no_grad():
        wanted, found = module(x), converted(module, network)(x)
    assert (wanted - network.module(x)).abs().max() > 1e-6
    assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kept", [{"stem.0": FLOAT}, {"depthwise.0": FLOAT}, {"pointwise.0": "4", "head": FLOAT}])
def test_networks_of_several_formats(network, kept):
    x = pictures()
    module = with_integer_biases(rounded_by(network, "int8", x, kept), network)
    with torch.no_grad():
        assert torch.allclose(converted(module, network)(x), module(x), atol=1e-5)


def test_weights_are_stored_as_integers(network):
    found = converted(rounded_by(network, "int8", pictures()), network)
    state = found.state_dict()
    assert not list(found.parameters())
    weights = [value for name, value in state.items() if name.endswith("_weight_integers")]
    biases = [value for name, value in state.items() if name.endswith("_bias_integers")]
    assert {w.dtype for w in weights} == {torch.int8} and {b.dtype for b in biases} == {torch.int32}
    assert [w.numel() for w in weights] == [8 * 3 * 4 * 4, 72, 64, 40] and len(biases) == 4
    assert len(state) == 3 * 8 and sum(v.numel() for n, v in state.items() if n.endswith("_scales")) == 2 * (3 * 8 + 5)


@pytest.mark.parametrize(
    ("ranges", "left"),
    [
        ({}, 0),
        # 255 steps of a float32 are more than 6 by a hair
        ({"stem_2_hardtanh": (0.0, 6.0)}, 0),
        ({"stem_2_hardtanh": (0.0, 7.0)}, 1),
        ({"stem_2_hardtanh": (-1.0, 5.0), "relu": (-0.5, 2.0)}, 2),
    ],
)
def test_activations_that_the_integers_clip_anyway_are_left_out(network, ranges, left):
    x = pictures()
    module = simulated(network, uniform(network, "8", "8"), {**ranges_of(network, x), **ranges}).eval()
    found = converted(with_integer_biases(module, network), network)
    assert sum(targets(found)[op] for op in (aten.relu.default, aten.hardtanh.default)) == left
    assert targets(found)[aten.clamp.default] == 0
    with torch.no_grad():
        assert torch.allclose(found(x), module(x), atol=1e-5)


def test_fewer_bits_than_the_container_has_are_clipped(network):
    found = converted(rounded_by(network, "w4a4", pictures()), network)
    assert targets(found)[aten.clamp.default] == len(network.points)
    stored = [v for n, v in found.state_dict().items() if n.endswith("_weight_integers")]
    assert all(w.min() >= -8 and w.max() <= 7 for w in stored)


class TwiceRead(nn.Module):
    """A convolution that is called twice, with different inputs, and a first layer that is linear."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(8, 8), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.conv(F.relu(self.linear(x))))).flatten(1)


def test_layers_that_share_their_weights():
    network, x = network_of(ready(TwiceRead()), (3, 8, 8)), images(4, 3, 8, 8)
    module = rounded_by(network, "w4a8", x)
    found = converted(module, network)
    # the bias is on two grids, so the simulation cannot have it on one: half a step of the products is all that is between
    step = max(point_quantizer_of(module, p).step.item() for p in network.points)
    with torch.no_grad():
        assert (found(x) - module(x)).abs().max() <= 2 * step


def test_a_bias_beside_weights_of_zero_is_kept():
    """A channel that a norm switched off is its bias, however small the scale of its weights is."""
    network, x = plain(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)), pictures(4, 8)
    conv = network.module._modules["0"]
    conv.weight.data[1] = 0
    conv.weight.data[2] *= 1e-9
    conv.bias.data = torch.tensor([0.1, 0.7, 0.9, 0.3])
    module = rounded_by(network, "int8", x)
    found = converted(module, network)
    integers = found.get_buffer(f"{network.layers[0].node}_bias_integers")
    assert torch.allclose(integers * found.get_buffer(f"{network.layers[0].node}_bias_scales"), conv.bias, atol=1e-3)
    with torch.no_grad():
        assert torch.allclose(found(x), network.module(x), atol=0.02)


# -- files


@pytest.mark.parametrize("precision", ["int8", "w4a4", "w16a16"])
def test_onnxruntime_computes_the_same(network, precision, tmp_path):
    x = pictures(7)
    found = converted(rounded_by(network, precision, x), network)
    write_onnx(found, x[:1], tmp_path / "model.onnx")
    run = load_onnx(tmp_path / "model.onnx")
    for batch in (x[:1], x[:2], x):
        assert torch.allclose(run(batch), found(batch), atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "w4a4", "w8a16", "fp8-e4m3"])
def test_a_network_is_built_again_from_its_files(network, precision, tmp_path):
    x, kept = pictures(), {"pointwise.0": "4"}
    module = rounded_by(network, precision, x, kept)
    scheme = uniform(network, *read_precision(precision), kept)
    found = converted(module, network)
    save_weights(found, tmp_path / "model.safetensors")
    # of the network the structure alone is needed, not the weights
    other = network_of(ready(Mini(), seed=7), (3, 16, 16))
    again = reconverted(other, {"scheme": scheme.to_json(), "points": points_of(module, network)})
    load_weights(again, tmp_path / "model.safetensors")
    assert torch.equal(again(x), found(x))
    assert [str(node.target) for node in again.graph.nodes] == [str(node.target) for node in found.graph.nodes]


def test_a_simulated_network_is_read_again(network, tmp_path):
    x = pictures()
    module = rounded_by(network, "w4afp8-e4m3", x)
    save_simulated(tmp_path, module, {"scheme": uniform(network, "4", "fp8-e4m3").to_json()})
    again = load_simulated(tmp_path, network_of(ready(Mini(), seed=7), (3, 16, 16)))
    assert torch.equal(again(x), module(x))


def test_files_that_do_not_fit(network, tmp_path):
    with pytest.raises(CorruptRun, match="quantization.json' cannot be read"):
        load_simulated(tmp_path, network)
    for scheme in ({}, {"weights": {}, "inputs": {}, "others": "5"}, 3):
        with pytest.raises(CorruptRun, match="has no scheme that can be read"):
            reconverted(network, {"scheme": scheme, "points": {}})
    about = {"scheme": uniform(network, "8", "8").to_json(), "points": {"nowhere": [0.1, 0]}}
    with pytest.raises(CorruptRun, match="rounds 'nowhere', which the network does not have"):
        reconverted(network, about)
