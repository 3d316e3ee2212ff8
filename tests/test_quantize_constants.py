"""What a forward puts together of its parameters is rounded like a parameter, and the graph is compared with the module."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import images
from quantize_toy import conv_bn, ready, rounded_by
from torch import Tensor, nn

from compress.export import load_onnx, write_onnx
from compress.quantize.convert import converted
from compress.quantize.graph import WEIGHTED, network_of
from compress.quantize.ptq import PtqConfig, quantize
from compress.quantize.scheme import uniform
from nas.errors import VerificationFailed

SHAPE = (3, 8, 8)
aten = torch.ops.aten


class Computed(nn.Module):
    """A convolution whose weight is standardized and whose bias is learned with a multiplier, and a norm of gain 1 + g."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain, self.shift = nn.Conv2d(3, 6, 3), nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(6))
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("variance", torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight - self.conv.weight.mean((1, 2, 3), keepdim=True)
        x = F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.conv.bias * 3.0)
        return F.batch_norm(x, self.mean, self.variance, 1 + self.gain, self.shift)


class Buffered(nn.Module):
    """A convolution whose bias, and a linear layer whose weight, is a buffer, as frozen layers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv_bn(3, 6)
        self.register_buffer("bias", torch.randn(6))
        self.register_buffer("weight", torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.conv2d(x, self.conv.weight, self.bias))
        return F.linear(x.mean((2, 3)), self.weight, torch.cat((self.bias[:2], self.bias.new_zeros(3))))


class ByImage(nn.Module):
    """A bias that depends on the images: it is no constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv_bn(3, 6)
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        level = torch.where(x.sum() > 1e6, 1.0, 2.0)
        return self.norm(F.conv2d(x, self.conv.weight, self.weight * level))


class OfBatch(nn.Module):
    """A norm with statistics that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv_bn(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        x, norm = self.conv(x), self.norm
        return F.batch_norm(x, norm.running_mean.clone(), norm.running_var.clone(), norm.weight, norm.bias, training=True)


class Tokens(nn.Module):
    """The batch by len()."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.token = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).view(len(x), 4, -1).transpose(1, 2)
        return torch.cat((self.token.expand(len(x), -1, -1), x), 1).mean(1)


class BySize(nn.Module):
    """Another way through for a single image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        return x if x.shape[0] > 1 else 2 * x


class Exported(nn.Module):
    """Adds up large values, but not where it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        values = self.conv(x).mean((2, 3))
        return values if torch.compiler.is_exporting() else values + F.relu(x.amax((1, 2, 3)) - 100).unsqueeze(1)


@pytest.mark.parametrize("make", [Computed, Buffered, Tokens])
def test_what_no_image_changes_is_rounded_like_parameters(make, tmp_path):
    module, x = ready(make()), images(8, *SHAPE)
    network = network_of(module, SHAPE)
    assert len(network.layers) == sum(node.target in WEIGHTED for node in network.module.graph.nodes)
    read = {str(node.target) for node in network.module.graph.nodes if node.op == "get_attr"}
    assert {key for key, _ in network.module.named_parameters()} == read
    integers = converted(rounded_by(network, "int8", x), network, x)
    write_onnx(integers, x[:1], tmp_path / "model.onnx")
    run = load_onnx(tmp_path / "model.onnx")
    with torch.no_grad():
        wanted = module(x)
        assert (integers(x) - wanted).abs().max() < 0.05 * wanted.abs().max()
        assert all((run(x[:n]) - wanted[:n]).abs().max() < 0.05 * wanted.abs().max() for n in (1, 3))


def test_what_depends_on_the_images_is_not_folded():
    module, x = ready(ByImage()), images(4, *SHAPE)
    network = network_of(module, SHAPE, x)
    assert aten.batch_norm.default in {node.target for node in network.module.graph.nodes}
    assert torch.allclose(network.module(x), module(x), atol=1e-5)
    found = quantize(network, uniform(network, "8", "8"), [x], PtqConfig())
    with torch.no_grad():
        assert (converted(found.module, network, x)(x) - module(x)).abs().max() < 0.05 * module(x).abs().max()


def test_a_norm_that_takes_the_statistics_of_its_batch_is_not_folded():
    module, x = ready(OfBatch()), images(4, *SHAPE)
    network = network_of(module, SHAPE)
    assert aten.batch_norm.default in {node.target for node in network.module.graph.nodes}
    assert torch.allclose(network.module(x), module(x), atol=1e-5)


def test_a_graph_that_answers_otherwise_is_refused():
    with pytest.raises(VerificationFailed, match=r"graph of BySize, traced .* gives other answers .*1 images"):
        network_of(ready(BySize()), SHAPE)


def test_the_graph_is_compared_on_the_images_that_are_given():
    module, x = ready(Exported()), images(3, *SHAPE)
    network_of(module, SHAPE, x)
    with pytest.raises(VerificationFailed, match="the graph of Exported"):
        network_of(module, SHAPE, 100 * x)
