"""Bias correction: rounding shifts the mean of a layer's outputs, which its bias takes back (Nagel et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from compress.quantize.graph import Network, Node


def correct_biases(module: fx.GraphModule, network: Network, images: Tensor) -> None:
    """Set the biases of a simulated `module` in place, so that on `images` each channel has the mean that it has in `network`.

    Layer by layer: each reads what the corrected ones before it put out. Layers without bias stay, and
    so do those that share theirs.
    """
    names = {layer.node for layer in network.layers}
    means = _Means(network.module, names)
    means.run(images)
    _Correct(module, means.found).run(images)


class _Means(fx.Interpreter):
    """Notes the mean of each output channel of some layers."""

    def __init__(self, module: fx.GraphModule, names: set[str]) -> None:
        super().__init__(module)
        self.names = names
        self.found: dict[str, Tensor] = {}

    @torch.no_grad()
    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n.name in self.names:
            self.found[n.name] = _channel_mean(n, value)
        return value


class _Correct(fx.Interpreter):
    """Moves biases to the means that are wanted, and goes on with the outputs that they then give."""

    def __init__(self, module: fx.GraphModule, wanted: Mapping[str, Tensor]) -> None:
        super().__init__(module)
        self.wanted = wanted

    @torch.no_grad()
    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        bias = n.args[2] if n.name in self.wanted and len(n.args) > 2 else None
        if not isinstance(bias, fx.Node) or bias.op != "get_attr" or len(bias.users) > 1:
            return value
        shift = self.wanted[n.name] - _channel_mean(n, value)
        assert isinstance(self.module, fx.GraphModule) and isinstance(value, Tensor)
        self.module.get_parameter(str(bias.target)).add_(shift)
        return value + (shift if _channels_last(n) else shift.reshape(-1, *(1 for _ in value.shape[2:])))


def _channel_mean(node: Node, value: object) -> Tensor:
    assert isinstance(value, Tensor)
    channel = value.ndim - 1 if _channels_last(node) else 1
    return value.float().mean([d for d in range(value.ndim) if d != channel])


def _channels_last(node: Node) -> bool:
    return node.target is torch.ops.aten.linear.default
