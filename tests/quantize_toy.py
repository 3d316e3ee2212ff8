"""Small networks to quantize: the parts that real ones are made of, with random norms, at 8 to 16 pixels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from networks import images
from torch import Tensor, fx, nn

from compress.quantize.formats import FORMATS
from compress.quantize.graph import Network, network_of
from compress.quantize.quantizer import IntQuantizer
from compress.quantize.ranges import CALIBRATIONS, histograms
from compress.quantize.scheme import read_precision, uniform
from compress.quantize.simulate import point_quantizer_of, simulated, weight_quantizer_of
from nas.data.dataset import plain_batches
from nas.data.load import DataConfig, load
from nas.evaluation.supernet import prepared
from nas.torch_seeding import generator


def conv_bn(into: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]


class Mini(nn.Module):
    """A stem with ReLU6, a depthwise convolution, a residual sum, dropout and a linear layer."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(channels, 8, stride=2), nn.ReLU6(inplace=True))
        self.depthwise = nn.Sequential(*conv_bn(8, 8, groups=8), nn.ReLU(inplace=True))
        self.pointwise = nn.Sequential(*conv_bn(8, 8, 1))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.pointwise(self.depthwise(x)))
        return self.head(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def ready(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and norms, to be evaluated."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return random_norms(module, seed).eval()


def random_norms(module: nn.Module, seed: int) -> nn.Module:
    """As networks.randomize_norms, for norms of vectors and for those without gain too."""
    rng = generator(seed, "norms")
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in filter(torch.is_tensor, (layer.weight, layer.running_var)):
                nn.init.uniform_(tensor, 0.5, 1.5, generator=rng)
            for tensor in filter(torch.is_tensor, (layer.bias, layer.running_mean)):
                nn.init.normal_(tensor, std=0.5, generator=rng)
    return module


def plain(*layers: nn.Module, shape: tuple[int, int, int] = (3, 8, 8)) -> Network:
    """Layers one after the other, traced."""
    return network_of(ready(nn.Sequential(*layers)), shape)


def mini() -> Network:
    return network_of(ready(Mini()), (3, 16, 16))


def ranges_of(network: Network, x: Tensor, bits: str = "8", method: str = "mse") -> Mapping[str, tuple[float, float]]:
    levels = 1 << min(16, FORMATS[bits].bits)
    return {name: CALIBRATIONS[method](seen, levels) for name, seen in histograms(network, [x]).items()}


def rounded_by(network: Network, precision: str, x: Tensor, kept: Mapping[str, str] | None = None) -> fx.GraphModule:
    """A network that is rounded to a precision such as w4a8, calibrated on `x`."""
    weights, activations = read_precision(precision)
    ranges = ranges_of(network, x, activations)
    return simulated(network, uniform(network, weights, activations, kept), ranges).eval()


def pictures(n: int = 16, side: int = 16) -> Tensor:
    return images(n, 3, side, side)


def with_integer_biases(module: fx.GraphModule, network: Network) -> fx.GraphModule:
    """Biases on the grid that integers give them, which the simulation does not round them to."""
    nodes = {node.name: node for node in module.graph.nodes}
    for layer in network.layers:
        weight, source = weight_quantizer_of(module, layer.node), point_quantizer_of(module, layer.source)
        bias = nodes[layer.node].args[2]
        if bias is not None and isinstance(weight, IntQuantizer) and isinstance(source, IntQuantizer):
            step = weight.step.detach() * source.step.detach()
            parameter = module.get_parameter(bias.target)
            parameter.data = (parameter.data / step).round() * step
    return module


def trained() -> tuple[Network, list[Tensor]]:
    """A network that tells digits apart, and training images in batches."""
    data = load(DataConfig("digits"))
    parts = plain_batches(len(data.train), 128)[:8]
    batches = list(prepared(data.train, parts, data, data.resolution, torch.device("cpu")))
    layers = [*conv_bn(1, 8), nn.ReLU(), *conv_bn(8, 12, stride=2), nn.ReLU(), *conv_bn(12, 12, groups=12), nn.ReLU()]
    module = ready(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, data.classes))).train()
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for x, y in 5 * batches:
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    network = network_of(module.eval(), (1, 8, 8))
    return network, [x for x, _ in batches[:4]]
