"""PlanModule: any plan as a module with random weights, for timing networks and parts of networks in torch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.cost.trace_handlers import FUSES_ACT
from nas.errors import InvalidSetting
from nas.plan import INPUT, Layer, Plan
from nas.runtimes.onnx_graph import margins, padding
from nas.runtimes.runtime import SEED
from nas.torch_seeding import generator

Operands = Callable[[Tensor, Tensor], Tensor]


class PlanModule(nn.Module):
    """The layers of a plan in their order: (N, C, H, W) -> the output of the last one.

    That is (N, C', H', W'), or (N, C') if it is linear. In evaluation mode, with weights that depend on the plan alone, of
    He et al. 2015, and batch norms of varied statistics: no zeros and no denormals, which change the time. Raises
    InvalidSetting naming the layer and its operation if it cannot be built, or does not give the shape that the plan says.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        with torch.device("meta"):  # building and checking need no memory, and touch no global generator
            self.steps = nn.ModuleList(_step(layer) for layer in plan.layers).eval()
            self._check(torch.empty(1, plan.input_channels, *plan.input_size))
        self.to_empty(device="cpu").eval()
        _initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        """Run all layers; maps keep their four axes until the end."""
        values = {INPUT: images}
        for layer, step in zip(self.plan.layers, self.steps, strict=True):
            values[layer.name] = step(*(values[name] for name in layer.inputs))
        last = self.plan.layers[-1]
        return values[last.name].flatten(1) if last.op == "linear" else values[last.name]

    def _check(self, image: Tensor) -> None:
        values = {INPUT: image}
        for layer, step in zip(self.plan.layers, self.steps, strict=True):
            wanted = (layer.out_channels, *layer.out_size)
            try:
                values[layer.name] = step(*(values[name] for name in layer.inputs))
            except (RuntimeError, ValueError) as error:
                cause = str(error).strip().partition("\n")[0]
                raise InvalidSetting(f"layer {layer.name!r} ({layer.op}) does not fit what it reads: {cause}") from error
            found = tuple(values[layer.name].shape[1:])
            if found != wanted:
                raise InvalidSetting(f"layer {layer.name!r} ({layer.op}) gives {found}, and the plan says {wanted}")


class _Step(nn.Module):
    """One layer: its operation on one or more maps, then what follows on its output."""

    def __init__(self, operation: nn.Module, after: nn.Sequential) -> None:
        super().__init__()
        self.operation, self.after = operation, after

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.after(self.operation(*inputs))


class _Elementwise(nn.Module):
    """An operation of two operands over any number of them; of one, with itself."""

    def __init__(self, operation: Operands) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return reduce(self.operation, others or (first,), first)


class _Concat(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)


class _ZeroPad(nn.Module):
    """Zeros around channels, rows and columns; F.pad takes the last axis first."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        channels, rows, columns = margins(layer)
        self.zeros = (*columns, *rows, *channels)

    def forward(self, image: Tensor) -> Tensor:
        return F.pad(image, self.zeros)


# -- one function an operation


def _conv(layer: Layer) -> nn.Module:
    channels = (layer.in_channels, layer.out_channels)
    return nn.Conv2d(*channels, layer.kernel, layer.stride, padding(layer), groups=layer.groups, bias=layer.bias)


def _linear(layer: Layer) -> nn.Module:
    if prod(layer.out_size) > 1:
        raise InvalidSetting(f"layer {layer.name!r} is linear over {prod(layer.out_size)} positions, which cannot be timed")
    return nn.Sequential(nn.Flatten(), nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias))


def _average_pool(layer: Layer) -> nn.Module:
    """Adaptive pooling has no window in a plan."""
    if layer.kernel == (1, 1) and layer.in_size != layer.out_size:
        return nn.AdaptiveAvgPool2d(layer.out_size)
    return nn.AvgPool2d(layer.kernel, layer.stride, padding(layer))


OPERATIONS: dict[str, Callable[[Layer], nn.Module]] = {
    "conv": _conv,
    "linear": _linear,
    "add": lambda layer: _Elementwise(operator.add),
    "mul": lambda layer: _Elementwise(operator.mul),
    "pool": lambda layer: nn.AdaptiveAvgPool2d(1),
    "avgpool": _average_pool,
    "maxpool": lambda layer: nn.MaxPool2d(layer.kernel, layer.stride, padding(layer)),
    "concat": lambda layer: _Concat(),
    "shuffle": lambda layer: nn.ChannelShuffle(layer.groups),
    "pad": _ZeroPad,
    "norm": lambda layer: nn.BatchNorm2d(layer.out_channels),
    "softmax": lambda layer: nn.Softmax(1),
    "act": lambda layer: nn.Identity(),
}

_IN_PLACE: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
}
_NEW: dict[str, type[nn.Module]] = {
    "": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}
ACTIVATIONS = (*_IN_PLACE, *_NEW)


def _step(layer: Layer) -> _Step:
    if layer.op not in OPERATIONS or layer.act not in ACTIVATIONS:
        what = f"{layer.op} {layer.act}".strip()
        raise InvalidSetting(
            f"layer {layer.name!r} ({what}) cannot be built from its plan; known are {', '.join(OPERATIONS)}, "
            f"with {', '.join(filter(None, ACTIVATIONS))}; time the exported network instead"
        )
    after: list[nn.Module] = []
    if layer.norm and layer.op != "norm":
        after.append((nn.BatchNorm1d if layer.op == "linear" else nn.BatchNorm2d)(layer.out_channels))
    if layer.act:
        after.append(_IN_PLACE[layer.act](inplace=layer.op in FUSES_ACT) if layer.act in _IN_PLACE else _NEW[layer.act]())
    if layer.op == "linear":
        after.append(nn.Unflatten(1, (layer.out_channels, 1, 1)))
    return _Step(OPERATIONS[layer.op](layer), nn.Sequential(*after))


def _initialize(module: nn.Module) -> None:
    rng = generator(SEED, "weights")
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, generator=rng)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1, generator=rng)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            _initialize_norm(part, rng)


def _initialize_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, rng: torch.Generator) -> None:
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    for scale in (norm.weight, norm.running_var):
        nn.init.uniform_(scale, 0.5, 1.5, generator=rng)
    for shift in (norm.bias, norm.running_mean):
        nn.init.normal_(shift, std=0.1, generator=rng)
    norm.num_batches_tracked.zero_()
