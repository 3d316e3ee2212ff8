from dataclasses import replace

import pytest
import torch
import torch.nn as nn

from nas.cost.recount import state_bytes
from nas.cost.storage import BITS, StoredTensor, file_bytes, plan_bytes
from nas.errors import InvalidSetting
from nas.plan import INPUT, ConvSpec, Layer, Plan, conv
from nas.seeding import numpy_rng
from nas.weights import save

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
NAMES = ("a", "conv.weight", "stages.0.1.expand.norm.num_batches_tracked", 'quo"te', "back\\slash", "größe", "Z", "_")


def written(tensors, folder) -> int:
    path = folder / "x.safetensors"
    save(tensors, path)
    return path.stat().st_size


class ConvNorm(nn.Module):
    """A layer named as in our spaces."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        channels = (layer.in_channels, layer.out_channels)
        self.conv = nn.Conv2d(*channels, layer.kernel, groups=layer.groups, bias=layer.bias)
        self.norm = nn.BatchNorm2d(layer.out_channels) if layer.norm else None


def module_of(plan: Plan) -> nn.Module:
    root = nn.Module()
    for layer in plan.layers:
        *path, last = layer.name.split(".")
        parent = root
        for name in path:
            if name not in dict(parent.named_children()):
                parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        if layer.op == "conv":
            parent.add_module(last, ConvNorm(layer))
        elif layer.op == "linear":
            parent.add_module(last, nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias))
    return root


def random_plan(seed: int) -> Plan:
    rng = numpy_rng(seed, "storage")
    channels, source, layers = int(rng.integers(1, 12)), INPUT, []
    for i in range(int(rng.integers(1, 12))):
        groups, factor = (channels, 1) if rng.random() < 0.3 else (1, int(rng.integers(1, 40)))
        flags = [bool(x) for x in rng.integers(2, size=2)]
        spec = ConvSpec(int(rng.choice([1, 3, 5])), 1, groups, bias=flags[0], norm=flags[1])
        layers.append(
            conv(f"stages.{i % 3}.{i}.{'x' * int(rng.integers(1, 9))}", source, (channels, groups * factor), (4, 4), spec)
        )
        channels, source = groups * factor, layers[-1].name
    layers.append(Layer("pool", "pool", (source,), channels, channels, (4, 4), (1, 1)))
    head = Layer("classifier", "linear", ("pool",), channels, 10, (1, 1), (1, 1), bias=bool(rng.integers(2)))
    return Plan(layers[0].in_channels, (4, 4), (*layers, head))


@pytest.mark.parametrize("seed", range(25))
def test_a_plan_tells_the_exact_size_of_its_file(seed, tmp_path):
    plan = random_plan(seed)
    module = module_of(plan)
    assert plan_bytes(plan) == state_bytes(module) == written(module.state_dict(), tmp_path)


def test_every_type_in_its_order(tmp_path):
    assert list(DTYPES) == list(BITS)
    for seed in range(25):
        rng = numpy_rng(seed, "types")
        names = rng.choice(NAMES, size=int(rng.integers(1, len(NAMES) + 1)), replace=False)
        tensors = {}
        for name in names:
            shape = tuple(int(n) for n in rng.integers(0, 200, size=int(rng.integers(0, 4))) % 17)
            tensors[str(name)] = (str(rng.choice(list(DTYPES))), shape)
        real = {name: torch.zeros(shape).to(DTYPES[dtype]) for name, (dtype, shape) in tensors.items()}
        assert file_bytes(StoredTensor(n, *t) for n, t in tensors.items()) == written(real, tmp_path)


def test_the_order_of_types_and_names_decides_the_offsets(tmp_path):
    # offsets of one to five digits: a wrong order changes the length of the header
    sizes = {"I64": 1, "F32": 2, "BF16": 300, "F16": 7, "I8": 40_000, "U8": 3}
    tensors = {f"{'n' * i}{dtype}": (dtype, (n,)) for i, (dtype, n) in enumerate(sizes.items())}
    real = {name: torch.zeros(shape).to(DTYPES[dtype]) for name, (dtype, shape) in tensors.items()}
    assert file_bytes(StoredTensor(n, *t) for n, t in tensors.items()) == written(real, tmp_path)


def test_narrow_weights(tmp_path):
    layer = Layer("head", "linear", (INPUT,), 30, 7, (1, 1), (1, 1), bias=True)
    plans = {bits: Plan(30, (1, 1), (replace(layer, weight_bits=bits),)) for bits in (32, 16, 8, 4)}
    half = {"head.weight": torch.zeros(7, 30, dtype=torch.float16), "head.bias": torch.zeros(7)}
    byte = {"head.weight": torch.zeros(7, 30, dtype=torch.int8), "head.bias": torch.zeros(7)}
    packed = {"head.weight": torch.zeros(105, dtype=torch.uint8), "head.bias": torch.zeros(7)}
    assert plan_bytes(plans[32]) == written(nn.ModuleDict({"head": nn.Linear(30, 7)}).state_dict(), tmp_path)
    assert [plan_bytes(plans[b]) for b in (16, 8, 4)] == [written(t, tmp_path) for t in (half, byte, packed)]


def test_weights_of_no_bits_are_refused():
    layer = Layer("head", "linear", (INPUT,), 30, 7, (1, 1), (1, 1), weight_bits=0)
    with pytest.raises(InvalidSetting, match="'head' has weight_bits=0"):
        plan_bytes(Plan(30, (1, 1), (layer,)))
