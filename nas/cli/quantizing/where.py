"""What of a quantized file runs where: as integers, in fp32, or to convert and move values; and which layers cost the time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from compress.quantize.graph import Layer, Network
from nas.runtimes.ort import Ran

INTEGERS, FP32, MOVES = "integers", "fp32", "conversions and moves"
MOST_COSTLY, MOST_NAMES = 5, 3
# what an integer kernel must sum up for each output to be worth its rounding
FEW_READ = 32
_CONVERT = frozenset(
    (
        "QuantizeLinear DequantizeLinear Transpose Reshape ReorderInput ReorderOutput Pad Slice Squeeze Unsqueeze Flatten Cast "
        "Concat Split Gather Shape Expand"
    ).split()
)
_INTEGER = {"QGemm", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
_INTEGER_TYPES = ("uint8", "int8")
_KIND = re.compile(r"(?:node_)?(conv\dd|linear)(?:_(\d+))?(?:_|$)")


def costly_of(ran: Sequence[Ran], network: Network) -> list[dict[str, Any]]:
    """The operators that take the most time: layer, share of the whole, and why integers do not help it."""
    whole = sum(one.ms for one in ran) or 1.0
    slowest = sorted(ran, key=lambda one: -one.ms)[:MOST_COSTLY]
    return [{"layer": _layer_name(x, network), "share": x.ms / whole, "reason": _reason(x, network)} for x in slowest]


def where_of(ran: Sequence[Ran], network: Network) -> list[dict[str, Any]]:
    """The operators by what they run as and their kind, those first that take the most time: number, share, some names."""
    whole = sum(one.ms for one in ran) or 1.0
    kinds: dict[tuple[str, str], list[Ran]] = {}
    for one in ran:
        kinds.setdefault((_runs_as(one), one.op), []).append(one)
    rows = [
        {
            "runs": runs,
            "op": op,
            "count": len(same),
            "share": sum(one.ms for one in same) / whole,
            "names": [_layer_name(one, network) for one in sorted(same, key=lambda one: -one.ms)[:MOST_NAMES]],
        }
        for (runs, op), same in kinds.items()
    ]
    return sorted(rows, key=lambda row: -float(str(row["share"])))


def lines_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each of what there is to run as, with its share of the time and its operators."""
    lines = []
    for runs in (INTEGERS, MOVES, FP32):
        same = [row for row in rows if row["runs"] == runs]
        operators = ", ".join(f"{row['op']} x{row['count']}" for row in same)
        share = sum(row["share"] for row in same)
        lines.append(f"{share:>6.1%} of the time {runs}: {operators or 'none'}")
    return lines if rows else []


def _runs_as(one: Ran) -> str:
    if one.op in _CONVERT:
        return MOVES
    return INTEGERS if one.op in _INTEGER or one.op.startswith("QLinear") or one.reads in _INTEGER_TYPES else FP32


def _layer(one: Ran, network: Network) -> Layer | None:
    """The layer that an operator computes: exporters number the operations of a kind in order."""
    match = _KIND.match(one.name)
    if match is None or one.op in _CONVERT:
        return None
    nodes = {node.name: node for node in network.module.graph.nodes}
    same = [x for x in network.layers if str(nodes[x.node].target).startswith(f"aten.{match[1]}.")]
    place = int(match[2] or 0)
    return same[place] if place < len(same) else None


def _layer_name(one: Ran, network: Network) -> str:
    layer = _layer(one, network)
    return layer.name if layer else f"{one.op} {one.name}"


def _reason(one: Ran, network: Network) -> str:
    if one.op in _CONVERT:
        return "moves or converts values"
    if _runs_as(one) == FP32:
        return f"runs in fp32, as {one.op}"
    layer = _layer(one, network)
    if layer is None:
        return ""
    reads = layer.params // layer.channels
    if reads < FEW_READ:
        return f"few products a value: each output sums {reads}, as depthwise layers do"
    return ""
