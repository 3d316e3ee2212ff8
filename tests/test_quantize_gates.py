"""Hard-swish and SiLU between integers: what they compute, and which kernels they run as."""

from __future__ import annotations

import pytest
import torch
from quantize_toy import conv_bn, pictures, plain, ranges_of
from torch import nn

from compress.export import write_onnx
from compress.quantize.convert import converted
from compress.quantize.scheme import read_precision, uniform
from compress.quantize.simulate import simulated
from nas.runtimes.ort import operators
from nas.runtimes.runtime import Setting

ACTIVATIONS = {"hard-swish": nn.Hardswish, "in place": lambda: nn.Hardswish(inplace=True), "silu": nn.SiLU}


def made(activation, precision="8"):
    network = plain(*conv_bn(3, 8), activation(), *conv_bn(8, 8), activation(), nn.Conv2d(8, 4, 1), shape=(3, 8, 8))
    x = pictures(8)[..., :8, :8]
    weights, inputs = read_precision(precision)
    module = simulated(network, uniform(network, weights, inputs), ranges_of(network, x, inputs)).eval()
    return network, module, x


@pytest.mark.parametrize("name", ACTIVATIONS)
@torch.no_grad()
def test_a_gate_of_integers_moves_little(name):
    network, module, x = made(ACTIVATIONS[name])
    found = converted(module, network, x)
    assert not any(node.target in (torch.ops.aten.hardswish.default, torch.ops.aten.silu.default) for node in found.graph.nodes)
    plain_error = (module(x) - network.module(x)).square().mean().sqrt()
    error = (found(x) - network.module(x)).square().mean().sqrt()
    assert error < 1.5 * plain_error + 1e-3


@pytest.mark.parametrize("activation", [nn.Hardswish, nn.SiLU])
@torch.no_grad()
def test_every_value_of_eight_bits(activation):
    network, module, x = made(activation)
    found = converted(module, network)
    ops = torch.ops.quantized_decomposed
    product = next(node for node in found.graph.nodes if node.target is torch.ops.aten.mul.Tensor)
    read, gate = product.args
    # all 256 integers that the activation may read, through the part of the graph that stands for it
    _, scale, zero, *_ = read.args
    values = (torch.arange(256) - zero) * scale
    between = gate.args[0].args[0]
    raw = values + 3 if between.target is torch.ops.aten.add.Tensor else values.sigmoid()
    stored = ops.quantize_per_tensor(raw, *gate.args[0].args[1:])
    found_values = values * ops.dequantize_per_tensor(stored, *gate.args[1:])
    assert ((found_values - activation()(values)).abs() <= values.abs() / 510 + 1e-5).all()


def test_fewer_bits_stay_as_they_are():
    network, module, _ = made(nn.Hardswish, "w4a4")
    found = converted(module, network)
    assert any(node.target is torch.ops.aten.hardswish.default for node in found.graph.nodes)


@pytest.mark.parametrize("activation", [nn.Hardswish, nn.SiLU])
def test_onnxruntime_runs_them_as_integers(activation, tmp_path):
    network, module, x = made(activation)
    write_onnx(converted(module, network), x[:1], tmp_path / "gates.onnx")
    ran = [one.op for one in operators(tmp_path / "gates.onnx", x[:1].numpy(), Setting("cpu", "int8", 1, 1))]
    assert ran.count("QLinearMul") == 2
    assert not {"HardSwish", "HardSigmoid", "Sigmoid", "Mul", "Add", "QuickGelu"} & set(ran), ran
