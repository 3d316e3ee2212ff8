"""Programs for executorch: networks of integers in the words of its kernels, and back from a file."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from quantize_toy import mini, pictures, ready, rounded_by
from torch import fx, nn

from compress.agreement import INTEGER_TOLERANCE, agreement
from compress.executorch import for_xnnpack, load_executorch, write_executorch
from compress.quantize.convert import converted
from compress.quantize.formats import FLOAT
from compress.quantize.graph import network_of
from nas.errors import MissingPackage

ops = torch.ops.quantized_decomposed
DEQUANTIZE = (ops.dequantize_per_tensor.default, ops.dequantize_per_channel.default)


class TwoReaders(nn.Module):
    """A moved image with two layers of integers that read it, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(768, 8), nn.Linear(768, 8), nn.Linear(8, 8)

    def forward(self, x):
        flat = x.flatten(1)
        return self.c(F.relu(self.c(F.relu(self.a(flat)) + self.b(flat))))


def mini_with(precision: str, kept: dict[str, str] | None = None) -> fx.GraphModule:
    network = mini()
    return converted(rounded_by(network, precision, pictures(), kept), network)


def of_two_readers() -> fx.GraphModule:
    network = network_of(ready(TwoReaders()), (3, 16, 16))
    return converted(rounded_by(network, "int8", pictures()), network)


@pytest.mark.parametrize(
    "made",
    [
        lambda: mini_with("int8"),
        lambda: mini_with("w4a8"),
        lambda: mini_with("w4a4"),
        lambda: mini_with("int8", {"stem.0": FLOAT}),
        lambda: mini_with("int8", {"pointwise.0": "4", "head": FLOAT}),
        of_two_readers,
    ],
)
def test_the_words_of_xnnpack_say_exactly_the_same(made):
    integers = made()
    x, before = pictures(), str(integers.graph)
    found = for_xnnpack(integers)
    with torch.no_grad():
        assert torch.equal(found(x), integers(x))
    assert str(integers.graph) == before
    nodes = [node for node in found.graph.nodes if node.target in (*DEQUANTIZE, ops.quantize_per_tensor.default)]
    assert nodes and all(node.args[-1] == torch.int8 for node in nodes)
    assert all(len(node.users) == 1 for node in nodes if node.target in DEQUANTIZE)
    read = {str(node.target) for node in found.graph.nodes if node.op == "get_attr"}
    assert set(found.state_dict()) == read  # nothing else would be written into a file


@pytest.mark.parametrize("made", [lambda: mini_with("int8"), of_two_readers])
def test_a_program_of_integers_answers_as_the_network(made, tmp_path):
    integers, x = made(), pictures()
    try:
        write_executorch(integers, x[:1], tmp_path / "model.pte")
    except MissingPackage as error:
        pytest.skip(str(error))
    loaded = load_executorch(tmp_path / "model.pte")
    assert agreement(integers, loaded, x, slack=INTEGER_TOLERANCE).ok
    first = loaded(x[:1])
    loaded(x[1:2])
    assert torch.equal(loaded(x[:1]), first)  # an answer is not overwritten by the next


def test_without_the_package_it_is_said_which_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.kernels.quantized", None)
    with pytest.raises(MissingPackage, match=r"pip install netcarver\[executorch\]"):
        write_executorch(mini_with("int8"), pictures()[:1], tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())
