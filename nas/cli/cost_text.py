"""What `nas cost` prints: a sheet of each network, or all in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.budget import LABEL, Metric, format_value
from nas.cli.table import print_table
from nas.plan import Layer

if TYPE_CHECKING:  # costing.py imports this file
    from nas.cli.costing import Row, Sheet

# bit operations say nothing new of a network that is not quantized
SUMS = ("macs", "params", "size_bytes", "activations", "peak_bytes")
EXACT = ("macs", "params")
NAMED_AT_MOST = 8
DITTO = '"'


def sheet(one: Sheet, by_layer: bool) -> None:
    """Print a network: its layers if wanted, then the sums."""
    plan = one.network.plan
    print(f"{one.network.name}, one image of {_map(plan.input_channels, plan.input_size)}\n")
    if by_layer:
        print_table(_columns(one), (_row(row, one) for row in one.rows))
        print()
    sums = [
        (_label(name), format_value(name, m.value), _remark(name, m)) for name, m in one.cost.metrics.items() if _is_sum(name)
    ]
    wide, far = (max(len(line[i]) for line in sums) for i in (0, 1))
    for label, value, remark in sums:
        print(f"{label:<{wide}}  {value:>{far}}  {remark}".rstrip())
    for line in _remarks(one):
        print(line)
    print()


def comparison(sheets: Sequence[Sheet]) -> None:
    """Print one row a network: its metrics, and their ratios to those of the first."""
    names = list(dict.fromkeys(name for one in sheets for name in one.cost.metrics if _is_sum(name)))
    first = sheets[0].cost
    rows = []
    for one in sheets:
        cells = [_compared(name, one.cost.value(name), first.value(name) if one is not sheets[0] else None) for name in names]
        rows.append([one.network.name, *(cell for pair in cells for cell in pair)])
    heads = [head for name in names for head in ((_label(name), "right"), ("", "right"))]
    print_table([("network", "left"), *heads], rows)
    for one in sheets:
        timed = [f"{_label(n)}: {m.method}, {m.context}" for n, m in one.cost.metrics.items() if _is_by_table(n)]
        for line in [*timed, *_remarks(one, in_full=False)]:
            print(f"{one.network.name}: {line}")
    print()


def _compared(name: str, value: float | None, first: float | None) -> tuple[str, str]:
    if value is None:
        return "unknown", ""
    return format_value(name, value), f"{value / first:.3g}x" if first else ""


def _columns(one: Sheet) -> list[tuple[str, str]]:
    shared = [("layer", "left"), ("operation", "left"), ("in", "right"), ("out", "left")]
    counted = [("multiply-adds", "right"), ("share", "right"), ("parameters", "right")]
    return shared + counted + ([("unit ms", "right")] if one.prediction else [])


def _row(row: Row, one: Sheet) -> list[str]:
    layer = row.layer
    shape = [_map(layer.in_channels, layer.in_size), f"-> {_map(layer.out_channels, layer.out_size)}"]
    counted = ["?" if n is None else f"{n:,}" if n else "" for n in (row.macs, row.params)]
    share = f"{row.share:.1%}" if row.share else ""
    ms = [_time(row, one)] if one.prediction else []
    return [layer.name, _operation(layer), *shape, counted[0], share, counted[1], *ms]


def _operation(layer: Layer) -> str:
    """Operation, window, groups, and the activation that is fused into it; a norm folds and needs no word."""
    words = [layer.op]
    if layer.kernel != (1, 1) or layer.stride != (1, 1) or layer.op == "conv":
        words.append("x".join(map(str, layer.kernel)) + (f"/{layer.stride[0]}" if layer.stride != (1, 1) else ""))
    if layer.groups > 1:
        words.append("depthwise" if layer.groups == layer.in_channels == layer.out_channels else f"groups {layer.groups}")
    return " ".join([*words, layer.act]).rstrip()


def _time(row: Row, one: Sheet) -> str:
    """The time of a unit where it begins, and a ditto mark at its other layers."""
    if not row.begins or one.prediction is None:
        return DITTO
    if row.ms is None:
        return "?"
    return ("~" if row.unit in one.prediction.interpolated else "") + f"{row.ms:.4f}"


def _remarks(one: Sheet, in_full: bool = True) -> list[str]:
    """What is not known, and how far to trust what is."""
    lines = []
    if one.cost.uncounted:
        lines.append(f"not counted, so the sums are lower bounds: {', '.join(_some(one.cost.uncounted))}")
    if one.prediction and one.prediction.missing:
        missing = one.prediction.missing
        lines.append(f"latency unknown: the table lacks {len(missing)} units of {len(one.prediction.rows)}")
        lines += [f"  {key}" for key in _some(missing)] if in_full else []
    if one.prediction and one.prediction.interpolated:
        lines.append(f"~ time of {len(one.prediction.interpolated)} units, interpolated along their channels")
    return lines


def _some(texts: Sequence[str]) -> list[str]:
    more = len(texts) - NAMED_AT_MOST
    return [*texts[:NAMED_AT_MOST], *([f"and {more} more"] if more > 0 else [])]


def _remark(name: str, metric: Metric) -> str:
    """Exact number of what is counted; how a time was found."""
    if metric.spread is not None:
        return f"+- {metric.spread:.2g} {metric.unit}  {metric.context}"
    return f"{metric.value:,}" if name in EXACT else metric.context


def _label(name: str) -> str:
    metric, _, target = name.partition("@")
    return LABEL[metric][0] + (f" on {target}" if target else "")


def _is_sum(name: str) -> bool:
    return name in SUMS or _is_by_table(name)


def _is_by_table(name: str) -> bool:
    return name.partition("@")[0] in ("latency_ms", "energy_mj")


def _map(channels: int, size: tuple[int, int]) -> str:
    return f"{channels}x{size[0]}x{size[1]}"
