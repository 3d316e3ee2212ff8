"""`nas quantize` reports which parts of its file run as integers, in fp32, or convert values."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from networks import images
from quantize_toy import ready, rounded_by
from torch import Tensor, nn

from compress.export import write_onnx
from compress.quantize.convert import converted
from compress.quantize.graph import network_of
from nas.cli.quantizing.where import FP32, INTEGERS, MOVES, costly_of, lines_of, where_of
from nas.runtimes.ort import operators
from nas.runtimes.runtime import Setting


class Padded(nn.Module):
    """TensorFlow's zeros on one side, zeros on both, a pooling to one pixel in between, and a mean before the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.point = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 1)
        self.last, self.head = nn.Conv2d(8, 8, 3, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(F.pad(x, (0, 1, 0, 1))))
        x = F.relu(self.deep(F.pad(x, (1, 1, 1, 1))))
        x = x + F.adaptive_avg_pool2d(self.point(x), 1)
        x = F.relu(self.last(F.pad(x, (0, 1, 1, 0), value=0.0)))
        return self.head(x.mean((2, 3)))


class Outside(nn.Module):
    """A padding that is not of zeros, and an activation that no integer kernel has."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.pad(F.gelu(self.one(x)), (1, 1, 1, 1), value=1.0)).mean((2, 3))


def ran(module: nn.Module, tmp_path):
    network, x = network_of(ready(module), (3, 16, 16)), images(8, 3, 16, 16)
    write_onnx(converted(rounded_by(network, "int8", x), network, x), x[:1], tmp_path / "model.onnx")
    return network, operators(tmp_path / "model.onnx", x[:1].numpy(), Setting("cpu", "int8", 1, 1), passes=2)


def test_nothing_runs_in_fp32_between_integers(tmp_path):
    network, found = ran(Padded(), tmp_path)
    rows = where_of(found, network)
    assert FP32 not in {row["runs"] for row in rows}
    counts = {row["op"]: row["count"] for row in rows}
    assert (counts["QLinearConv"], counts["QLinearGlobalAveragePool"], counts["QLinearAdd"]) == (4, 2, 1)
    assert "Pad" not in counts and counts["QuantizeLinear"] == 1  # of the image
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_what_runs_in_fp32_is_named(tmp_path):
    network, found = ran(Outside(), tmp_path)
    rows = where_of(found, network)
    assert {row["op"] for row in rows if row["runs"] == FP32} >= {"Gelu"} or "Erf" in {row["op"] for row in rows}
    assert "Pad" in {row["op"] for row in rows}
    integers, moves, floats = lines_of(rows)
    assert f"of the time {INTEGERS}: QLinearConv x2" in integers and MOVES in moves and f"of the time {FP32}:" in floats
    assert {"layer", "share", "reason"} == set(costly_of(found, network)[0])


def test_nothing_is_told_where_nothing_was_timed():
    assert lines_of([]) == []
