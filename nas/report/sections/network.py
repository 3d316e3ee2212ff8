"""What the delivered network looks like, and where its cost is, beside the one that it was carved or cut out of."""

from __future__ import annotations

from html import escape

from nas.report.contents import Contents
from nas.report.drawing import drawing
from nas.report.figures import cost_figure
from nas.report.layers import Block, LayerRow, Layers, blocks
from nas.report.parts import NOTHING, Section, code, figure, folded, number, quiet, table
from nas.report.words import show

TALL = 30


def architecture(contents: Contents) -> Section | None:
    """Both networks, block by block."""
    layers = contents.layers
    if layers is None:
        return None
    ours, theirs = blocks(layers.chosen), blocks(layers.reference)
    tallest = max(len(ours), len(theirs))
    content = f'<div class="drawings">{drawing(ours, theirs, layers)}</div>'
    note = quiet(
        f"For images of {_map(layers.image)}. Bars grow with the square root of the channels; k is the window, s the stride; "
        "an arc adds what comes in to what goes out. Dashed blocks are those that this network does without."
    )
    text = folded("The same as a table", _block_table(ours, theirs, layers))
    shown = content if tallest <= TALL else folded(f"{tallest} blocks", content)
    return Section("architecture", "Architecture", f"{shown}{note}{text}")


def costs(contents: Contents) -> Section | None:
    """Multiply-adds, parameters and, where it was predicted, time of each layer."""
    layers = contents.layers
    if layers is None:
        return None
    drawn = figure(
        "costs", "Multiply-adds of each block of both networks",
        cost_figure(layers.costs, ("this network", layers.reference_name)), "figure low",
    )  # fmt: skip
    listed = folded(f"{len(layers.chosen)} layers", _layer_table(layers))
    return Section("costs", "Cost layer by layer", f"{drawn}{listed}")


def _block_table(ours: list[Block], theirs: list[Block], layers: Layers) -> str:
    mine, other = ({b.name: b for b in found} for found in (ours, theirs))
    rows = [[code(c.name), *_described(mine.get(c.name)), *_described(other.get(c.name))] for c in layers.costs]
    heads = [f"#{what}, {escape(who)}" for who in ("this network", layers.reference_name) for what in ("channels", "window")]
    return table("Blocks", ["block", *heads], rows)


def _described(block: Block | None) -> list[str]:
    return (
        [NOTHING, NOTHING]
        if block is None
        else [str(block.width), f"{block.kernel} x {block.kernel}" if block.kernel else NOTHING]
    )


def _layer_table(layers: Layers) -> str:
    theirs = {x.name: x for x in layers.reference}
    total = sum(x.macs or 0 for x in layers.chosen)
    timed = any(x.ms is not None for x in layers.chosen)
    rows = [_layer_row(x, theirs.get(x.name), total, timed) for x in layers.chosen if x.weighty]
    reference = escape(layers.reference_name)
    heads = ["layer", "operation", "in", "out", "#multiply-adds", "#share", f"#{reference}", "#parameters", f"#{reference}"]
    return table("Layers", heads + (["#predicted time"] if timed else []), rows)


def _layer_row(layer: LayerRow, other: LayerRow | None, total: int, timed: bool) -> list[str]:
    share = NOTHING if layer.macs is None or not total else f"{layer.macs / total:.1%}"
    row = [code(layer.name), escape(_operation(layer)), _map(layer.taken), _map(layer.given), number("macs", layer.macs), share]
    row += [number("macs", other.macs if other else None), show("params", layer.params)]
    row += [number("params", other.params if other else None)]
    return row + ([number("latency_ms", layer.ms)] if timed else [])


def _operation(layer: LayerRow) -> str:
    window = f" {layer.kernel[0]}x{layer.kernel[1]}" if layer.op == "conv" else ""
    stride = f"/{max(layer.stride)}" if max(layer.stride) > 1 else ""
    groups = "" if layer.groups == 1 else " depthwise" if layer.groups == layer.given[0] else f" groups {layer.groups}"
    return f"{layer.op}{window}{stride}{groups} {layer.act}".strip()


def _map(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))
