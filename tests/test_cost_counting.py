import numpy as np
import pytest

from nas.budget import Budget
from nas.cost.counting import ACTIVATIONS, MACS, PARAMS, count, macs, params, peak_bytes
from nas.plan import INPUT, ConvSpec, Layer, Plan, conv
from nas.seeding import numpy_rng


def elementwise(name: str, op: str, inputs: tuple[str, ...], channels: int, size: tuple[int, int]) -> Layer:
    return Layer(name, op, inputs, channels, channels, size, size)


def test_convolution_by_hand():
    layer = conv("a", INPUT, (6, 8), (10, 9), ConvSpec(kernel=3, stride=2, groups=2, bias=True, norm=True))
    assert layer.out_size == (5, 5)
    assert macs(layer) == 8 * 5 * 5 * (6 // 2) * 3 * 3
    assert params(layer) == 8 * 3 * 9 + 8 + 2 * 8


def test_linear_matmul_and_attention_by_hand():
    assert macs(Layer("a", "linear", (INPUT,), 5, 7, (4, 1), (4, 1), bias=True)) == 4 * 5 * 7
    assert params(Layer("a", "linear", (INPUT,), 5, 7, (4, 1), (4, 1), bias=True)) == 5 * 7 + 7
    assert macs(Layer("a", "matmul", (INPUT,), 5, 7, (4, 1), (4, 1))) == 4 * 5 * 7
    # 2 heads of 3 channels, values of 4 channels; 6 queries and 5 keys: QK' is 2*6*5*3, then 2*6*5*4
    assert macs(Layer("a", "attention", (INPUT,), 2 * 3, 2 * 4, (5, 1), (6, 1))) == 2 * 6 * 5 * (3 + 4)


@pytest.mark.parametrize("op", sorted(set(MACS) - ACTIVATIONS))
def test_what_the_rule_calls_free_is_free(op):
    assert macs(elementwise("a", op, (INPUT,), 4, (3, 3))) == 0


def test_only_counted_operations_have_parameters():
    assert set(PARAMS) <= set(MACS) and ACTIVATIONS <= set(MACS)


def test_a_small_plan_by_hand():
    first = conv("stem", INPUT, (3, 4), (8, 8), ConvSpec(3, act="relu"))
    second = conv("body", "stem", (4, 4), (8, 8), ConvSpec(3, groups=4))
    total = elementwise("add", "add", ("stem", "body"), 4, (8, 8))
    pool = Layer("pool", "pool", ("add",), 4, 4, (8, 8), (1, 1))
    last = Layer("head", "linear", ("pool",), 4, 10, (1, 1), (1, 1), bias=True)
    cost = count(Plan(3, (8, 8), (first, second, total, pool, last)))
    multiply_adds = 4 * 64 * 27 + 4 * 64 * 9 + 4 * 10
    assert cost.uncounted == ()
    assert cost.value("macs") == multiply_adds
    assert cost.value("params") == (108 + 8) + (36 + 8) + 50
    assert cost.value("activations") == 256 + 256 + 10
    assert cost.value("peak_bytes") == 3 * 256 * 4  # while the sum is computed: both inputs and the output
    assert cost.value("bitops") == multiply_adds * 32 * 32
    assert {m.method for m in cost.metrics.values()} == {"plan"}
    assert cost.metrics["macs"].unit == "multiply-adds"


def test_bit_widths():
    layer = Layer("head", "linear", (INPUT,), 100, 10, (1, 1), (1, 1), weight_bits=4, act_bits=8)
    cost = count(Plan(100, (1, 1), (layer,)))
    assert cost.value("bitops") == 1000 * 4 * 8
    assert cost.value("peak_bytes") == 100 + 10


def test_unknown_is_not_zero():
    known = conv("a", INPUT, (3, 4), (8, 8), ConvSpec(3))
    cost = count(Plan(3, (8, 8), (known, elementwise("b", "fft", ("a",), 4, (8, 8)))))
    assert cost.uncounted == ("fft (b)",)
    assert Budget.parse("1GFLOPs").check(cost) is not None


def random_plan(rng: np.random.Generator) -> Plan:
    """Layers that read up to three earlier outputs, of any size and bit width; some are never read."""
    layers: list[Layer] = []
    for i in range(int(rng.integers(1, 9))):
        names = [INPUT, *(layer.name for layer in layers)]
        inputs = tuple(str(n) for n in rng.choice(names, size=min(len(names), int(rng.integers(1, 4))), replace=False))
        channels, side = int(rng.integers(1, 9)), int(rng.integers(1, 5))
        bits = int(rng.choice([4, 8, 32]))
        layers.append(Layer(f"l{i}", "add", inputs, channels, channels, (side, side), (side, side), act_bits=bits))
    return Plan(int(rng.integers(1, 9)), (3, 3), tuple(layers))


def simulated_peak(plan: Plan) -> int:
    """Look at every moment at every tensor: is it being written, or still read now or later?"""
    reader = next((layer for layer in plan.layers if INPUT in layer.inputs), None)
    tensors = [(-1, INPUT, plan.input_channels * 9, reader.act_bits if reader else 32)]
    tensors += [(i, x.name, x.out_channels * x.out_size[0] * x.out_size[1], x.act_bits) for i, x in enumerate(plan.layers)]
    peak = 0
    for now in range(-1, len(plan.layers)):
        total = 0
        for born, name, elements, bits in tensors:
            read_later = any(name in layer.inputs for layer in plan.layers[max(now, 0) :])
            if born == now or (born < now and read_later):
                total += -(-elements * bits // 8)
        peak = max(peak, total)
    return peak


def test_peak_memory_equals_a_simulation_on_random_graphs():
    for seed in range(300):
        plan = random_plan(numpy_rng(seed, "peak"))
        assert peak_bytes(plan) == simulated_peak(plan), plan


def test_a_shortcut_keeps_its_tensor_alive():
    first = conv("a", INPUT, (1, 8), (4, 4), ConvSpec())
    wide = conv("b", "a", (8, 16), (4, 4), ConvSpec())
    back = conv("c", "b", (16, 8), (4, 4), ConvSpec())
    chain = Plan(1, (4, 4), (first, wide, back))
    residual = Plan(1, (4, 4), (first, wide, back, elementwise("d", "add", ("a", "c"), 8, (4, 4))))
    assert peak_bytes(chain) == 4 * 16 * (8 + 16)
    assert peak_bytes(residual) == 4 * 16 * (8 + 16 + 8)


def test_a_plan_without_layers_holds_its_image():
    assert count(Plan(3, (2, 2), ())).values() == {
        "macs": 0,
        "params": 0,
        "size_bytes": 16,
        "activations": 0,
        "peak_bytes": 48,
        "bitops": 0,
    }
