"""Read the latency tables of ProxylessNAS and Once for All, whose keys describe a block in words.

A key is `expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0`, an inverted residual (sizes are
height, width, channels), or one of the three that every network has: `Conv`, the 3x3 stem; `Conv_1`, the last 1x1 convolution;
`Logits`, pooling and classifier. Activations are ReLU6 there and are taken for ReLU, which all our blocks have.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from nas.errors import InvalidSetting
from nas.files import read_regular
from nas.latency.table import CorruptTable, Entry, LatencyTable
from nas.latency.target import Target
from nas.latency.units import units
from nas.plan import INPUT, ConvSpec, Layer, Plan, conv
from nas.supernet.blocks import BlockSpec, head_layers, inverted_residual_layers

Row = Mapping[str, str]
Words = Mapping[str, tuple[int, ...]]


def read_proxyless(path: Path, target: Target, name: str = "", source: str = "") -> LatencyTable:
    """Read a table of `target`: CSV with the columns key, mean_ms, var, count, or YAML that maps a key to mean, var, count.

    Raises CorruptTable naming the row that is not understood, InvalidSetting if there is no such file.
    """
    try:
        text = read_regular(path).decode("utf-8")
    except OSError:
        raise InvalidSetting(f"there is no latency table {str(path)!r}; give a CSV or YAML file of ProxylessNAS") from None
    except UnicodeDecodeError:
        raise CorruptTable(f"{str(path)!r} is no latency table: it is not text") from None
    rows = _yaml_rows(text) if path.suffix in (".yaml", ".yml") else _csv_rows(text)
    entries: dict[str, Entry] = {}
    for key, row in rows.items():
        try:
            [unit] = units(plan_of(key))
            entries[unit.key] = _entry(row)
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise CorruptTable(f"{str(path)!r}: {key!r} is no block with a mean in ms ({error}); restore the file") from error
    if not entries:
        raise CorruptTable(f"{str(path)!r} holds no block; expected keys like Conv-input:224x224x3-output:112x112x32")
    return LatencyTable(target, entries, made={"source": source or str(path)}, name=name)


def _csv_rows(text: str) -> dict[str, Row]:
    return {row["key"]: {**row, "mean": row.get("mean_ms", "")} for row in csv.DictReader(io.StringIO(text)) if row.get("key")}


def _yaml_rows(text: str) -> dict[str, Row]:
    """Read a mapping of keys to mappings of numbers, in block or flow style: all the YAML that there is in such a file."""
    parts = [re.split(r":\s", part, maxsplit=1) for part in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if part.strip()]
    return {p[0]: dict(re.findall(r"(\w+):\s+([^\s,}]+)", p[-1])) for p in parts if p[0].strip() != "---" and p[0][0] != "#"}


def _entry(row: Row) -> Entry:
    ms, variance = float(row["mean"]), float(row.get("var") or 0)
    if not (math.isfinite(ms) and ms > 0):
        raise ValueError(f"{ms} ms is no latency")
    return Entry(ms, calls=int(row.get("count") or 0), note=f"mean; standard deviation {variance**0.5:.3g} ms")


# -- from keys to plans


def plan_of(key: str) -> Plan:
    """The layers of one row. Raises ValueError or KeyError for a key that is not understood."""
    kind, *texts = key.split("-")
    words = {name: tuple(int(n) for n in value.split("x")) for name, _, value in (t.partition(":") for t in texts)}
    height, width, channels = words["input"]
    layers = BLOCKS[kind](words)
    if kind != "Logits" and (*layers[-1].out_size, layers[-1].out_channels) != words["output"]:
        raise ValueError("its output does not follow from its input")
    return Plan(channels, (height, width), tuple(layers))


def _convolution(kernel: int) -> Callable[[Words], list[Layer]]:
    def layers(words: Words) -> list[Layer]:
        (height, width, before), after = words["input"], words["output"]
        return [conv("conv", INPUT, (before, after[2]), (height, width), ConvSpec(kernel, height // after[0], act="relu"))]

    return layers


def _classifier(words: Words) -> list[Layer]:
    height, width, features = words["input"]
    return head_layers("classifier", INPUT, (features, words["output"][-1]), (height, width))


def _inverted_residual(words: Words) -> list[Layer]:
    (height, width, before), after = words["input"], words["output"][2]
    [expansion], [kernel], [stride], [adds] = (words[name] for name in ("expand", "kernel", "stride", "idskip"))
    spec = BlockSpec(before, after, before * expansion, kernel, stride, residual=bool(adds))
    layers = inverted_residual_layers("block", INPUT, (height, width), spec)
    if expansion == 1:  # the depthwise convolution comes first
        return [replace(layers[1], inputs=(INPUT,)), *layers[2:]]
    return layers


BLOCKS: dict[str, Callable[[Words], list[Layer]]] = {
    "Conv": _convolution(3),
    "Conv_1": _convolution(1),
    "Logits": _classifier,
    "expanded_conv": _inverted_residual,
}
