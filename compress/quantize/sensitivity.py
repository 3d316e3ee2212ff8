"""Sensitivity: what it costs to round the weights of one layer to a format. Adding a method is adding a line in SENSITIVITIES.

Each takes a network, formats and images, and gives the loss for each layer and format; losses of layers add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx

from compress.quantize.formats import FLOAT, FORMATS
from compress.quantize.graph import Layer, Network, Node
from compress.quantize.ptq import judge_of
from compress.quantize.quantizer import weight_quantizer
from compress.quantize.simulate import fit_weight, weight_of
from nas.torch_seeding import generator

Losses = Mapping[str, Mapping[str, float]]
Sensitivity = Callable[[Network, Sequence[str], Sequence[Tensor]], Losses]
HUTCHINSON_SAMPLES = 32


def ablation(network: Network, formats: Sequence[str], batches: Sequence[Tensor]) -> Losses:
    """Divergence of the network's output when this layer alone is rounded: one at a time, measured."""
    judge = judge_of(network, batches)
    found: dict[str, dict[str, float]] = {}
    for layer in network.layers:
        found[layer.name] = {}
        for name in formats:
            with _rounded(network, layer, name):
                found[layer.name][name] = judge.error(network.module) if name != FLOAT else 0.0
    return found


def output_error(network: Network, formats: Sequence[str], batches: Sequence[Tensor]) -> Losses:
    """Squared error of the layer's own output, relative to its energy."""
    inputs = _Inputs(network)
    inputs.run(batches[0])
    nodes = {node.name: node for node in network.module.graph.nodes}
    found: dict[str, dict[str, float]] = {}
    for layer in network.layers:
        node, weight = nodes[layer.node], weight_of(network.module, network, layer.node)
        run = _operation(node, inputs.found[layer.node])
        exact = run(weight.detach())
        energy = float(exact.square().mean()) + 1e-12
        found[layer.name] = {n: float((run(rounded(weight, n)) - exact).square().mean()) / energy for n in formats}
    return found


def hessian_trace(network: Network, formats: Sequence[str], batches: Sequence[Tensor]) -> Losses:
    """Mean eigenvalue of the Hessian times the squared error of the weights (Dong et al. 2020, HAWQ-V2).

    Of the cross-entropy with the network's own probabilities p, so no labels are needed. There it is J' (diag(p) - p p') J with
    the Jacobian J of the logits: a product of two factors, so that Hutchinson's method needs no second derivatives, and gives
    each layer a trace that is not negative and free of the noise of the others.
    """
    weights = [weight_of(network.module, network, layer.node) for layer in network.layers]
    logits = network.module(batches[0])
    chances = logits.detach().softmax(1)
    traces = torch.zeros(len(weights))
    for sample in range(HUTCHINSON_SAMPLES):
        signs = torch.randint(0, 2, logits.shape, generator=generator(sample, "hutchinson")) * 2 - 1
        parts = chances.sqrt() * signs
        probe = (parts - chances * parts.sum(1, keepdim=True)) / len(logits) ** 0.5
        products = torch.autograd.grad(logits, weights, probe, retain_graph=True)
        traces += torch.stack([p.square().sum() for p in products])
    found = {}
    for layer, weight, trace in zip(network.layers, weights, traces.tolist(), strict=True):
        mean = trace / HUTCHINSON_SAMPLES / weight.numel()
        found[layer.name] = {n: 0.5 * mean * float((rounded(weight, n) - weight.detach()).square().sum()) for n in formats}
    return found


def relevance(network: Network, formats: Sequence[str], batches: Sequence[Tensor]) -> Losses:
    """Share of the relevance that the layer passes on, times the relative squared error of its weights (LRP-QViT).

    Layer-wise relevance propagation by its basic rule, which for networks of ReLUs is the gradient times the value.
    """
    runs = _Relevance(network)
    logits = runs.run(batches[0])
    logits.max(1).values.sum().backward()
    network.module.zero_grad(set_to_none=True)
    passed = {name: float((v.detach() * torch.as_tensor(v.grad)).abs().sum()) for name, v in runs.values.items()}
    total = sum(passed.values()) or 1.0
    found = {}
    for layer in network.layers:
        weight = weight_of(network.module, network, layer.node)
        energy = float(weight.detach().square().sum()) + 1e-12
        error = {n: float((rounded(weight, n) - weight.detach()).square().sum()) / energy for n in formats}
        found[layer.name] = {n: passed[layer.node] / total * error[n] for n in formats}
    return found


SENSITIVITIES: Mapping[str, Sensitivity] = {
    "ablation": ablation,
    "output-error": output_error,
    "hessian": hessian_trace,
    "lrp": relevance,
}


def rounded(weight: Tensor, name: str) -> Tensor:
    """Weights of a layer, rounded to a format, with a scale for each output channel."""
    quantizer = weight_quantizer(FORMATS[name], len(weight))
    if quantizer is None:
        return weight.detach()
    fit_weight(quantizer, weight)
    with torch.no_grad():
        return quantizer(weight)


@contextmanager
def _rounded(network: Network, layer: Layer, name: str) -> Iterator[None]:
    """Run the network with one layer rounded; its weights are put back."""
    weight = weight_of(network.module, network, layer.node)
    before = weight.detach().clone()
    try:
        weight.data.copy_(rounded(weight, name))
        yield
    finally:
        weight.data.copy_(before)


class _Inputs(fx.Interpreter):
    """Notes what each layer reads."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module)
        self.names = {layer.node for layer in network.layers}
        self.found: dict[str, tuple[object, ...]] = {}

    @torch.no_grad()
    def run_node(self, n: Node) -> object:
        if n.name in self.names:
            self.found[n.name] = self.fetch_args_kwargs_from_env(n)[0]
        return super().run_node(n)


def _operation(node: Node, args: tuple[object, ...]) -> Callable[[Tensor], Tensor]:
    """A layer as a function of its weights, on what it read."""
    run = node.target
    assert callable(run)

    def apply(weight: Tensor) -> Tensor:
        with torch.no_grad():
            return run(args[0], weight, *args[2:])

    return apply


class _Relevance(fx.Interpreter):
    """Keeps the output of each layer for its gradient."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.module)
        self.names = {layer.node for layer in network.layers}
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n.name in self.names:
            assert isinstance(value, Tensor)
            value.retain_grad()
            self.values[n.name] = value
        return value
