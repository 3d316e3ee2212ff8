"""Programs for executorch: networks of integers in the words of its kernels, and back from a file."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from quantize_toy import mini, pictures, rounded_by
from torch import fx

from compress.executorch import for_xnnpack, load_executorch, write_executorch
from compress.export import agreement
from compress.quantize.convert import converted
from compress.verify import INTEGER_TOLERANCE
from nas.errors import MissingPackage

ops = torch.ops.quantized_decomposed
DEQUANTIZE = (ops.dequantize_per_tensor.default, ops.dequantize_per_channel.default)
needs_executorch = pytest.mark.skipif(
    not importlib.util.find_spec("executorch"), reason="executorch is not installed: pip install 'netcarver[executorch]'"
)


@pytest.fixture(scope="module")
def integers() -> fx.GraphModule:
    network = mini()
    return converted(rounded_by(network, "int8", pictures()), network)


def test_the_words_of_xnnpack_say_exactly_the_same(integers):
    x, before = pictures(), str(integers.graph)
    found = for_xnnpack(integers)
    with torch.no_grad():
        assert torch.equal(found(x), integers(x))
    assert str(integers.graph) == before
    nodes = [node for node in found.graph.nodes if node.target in (*DEQUANTIZE, ops.quantize_per_tensor.default)]
    assert nodes and all(node.args[-1] == torch.int8 for node in nodes)
    assert all(len(node.users) == 1 for node in nodes if node.target in DEQUANTIZE)


@needs_executorch
def test_a_program_of_integers_answers_as_the_network(integers, tmp_path):
    x = pictures()
    write_executorch(integers, x[:1], tmp_path / "model.pte")
    loaded = load_executorch(tmp_path / "model.pte")
    found = agreement(integers, loaded, x, tie=INTEGER_TOLERANCE)
    assert found.decided_agreement == 1.0 and found.max_difference <= INTEGER_TOLERANCE * found.scale
    first = loaded(x[:1])
    loaded(x[1:2])
    assert torch.equal(loaded(x[:1]), first)  # an answer is not overwritten by the next


def test_without_the_package_it_is_said_which_is_missing(integers, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(MissingPackage, match=r"pip install netcarver\[executorch\]"):
        write_executorch(integers, pictures()[:1], tmp_path / "model.pte")
    assert not list(tmp_path.iterdir())
