"""Networks as drawings: one row a block, as wide as it has channels. Inline SVG, which needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import sqrt

from nas.report.layers import Block, Layers, merged
from nas.report.words import format_name

WIDTH, ROW, BAR = 416, 30, 16
LEFT, MOST = 104, 150  # where bars begin, and how long the widest one is
NOTE = LEFT + MOST + 26


def drawing(ours: Sequence[Block], theirs: Sequence[Block], layers: Layers) -> str:
    """Both networks beside each other, equal blocks in equal rows; on a narrow page one below the other."""
    rows = merged([b.name for b in ours], [b.name for b in theirs])
    widest = max((b.width for b in (*ours, *theirs)), default=1)
    sides = (("this network", "chosen", ours), (layers.reference_name, "reference", theirs))
    return "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{_network(found, rows, widest, style)}</figure>"
        for title, style, found in sides
    )


def _network(found: Sequence[Block], rows: Sequence[str], widest: int, style: str) -> str:
    by_name = {b.name: b for b in found}
    height = ROW * len(rows) + 8
    told = "; ".join(f"{b.name} {_told(b)}" for b in found)
    parts = [f'<line class="wire" x1="{LEFT}" y1="4" x2="{LEFT}" y2="{height - 4}"/>']
    size: tuple[int, int] | None = None
    for i, name in enumerate(rows):
        block, top = by_name.get(name), 4 + ROW * i
        parts.append(_row(name, block, top, widest, block is not None and block.size != size))
        size = block.size if block else size
    return (
        f'<svg class="drawing" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(told)}">'
        f'<g class="{style}">{"".join(parts)}</g></svg>'
    )


def _row(name: str, block: Block | None, top: float, widest: int, resized: bool) -> str:
    middle = top + ROW / 2
    label = f'<text class="label" x="0" y="{middle + 4}">{escape(_short(name))}</text>'
    if block is None:
        gone = f'<rect class="gone" x="{LEFT}" y="{middle - BAR / 2}" width="{MOST / 4:.0f}" height="{BAR}" rx="3"/>'
        return f'{label}{gone}<text class="note" x="{NOTE}" y="{middle + 4}">left out</text>'
    # by the square root, or the first blocks of a network would be too thin to be seen
    wide = max(4.0, MOST * sqrt(block.width / widest))
    bar = f'<rect class="block" x="{LEFT}" y="{middle - BAR / 2}" width="{wide:.1f}" height="{BAR}" rx="3"/>'
    text = _told(block) + (f" {block.size[0]}×{block.size[1]}" if resized and block.size != (1, 1) else "")
    arc = _arc(top, LEFT + wide) if block.skip else ""
    return f'{label}{bar}{arc}<text class="note" x="{NOTE}" y="{middle + 4}">{escape(text)}</text>'


def _arc(top: float, x: float) -> str:
    """From above a block around it to below it."""
    start, end = top + 3, top + ROW - 3
    line = f'<path class="skip" d="M{x:.1f} {start} c16 0 16 {end - start:.1f} 2 {end - start:.1f}"/>'
    return f'{line}<path class="tip" d="M{x:.1f} {end} l6 -3.5 l0 7 z"/>'


def _told(block: Block) -> str:
    """`24 ch, k5 s2, 8 bits`."""
    window = f"k{block.kernel}" if block.kernel else next((x.op for x in block.layers if x.weighty), block.layers[0].op)
    parts = [f"{block.width} ch", window + (f" s{block.stride}" if block.stride > 1 else "")]
    return ", ".join(parts + [format_name(bits) for bits in block.bits])


def _short(name: str) -> str:
    return name if len(name) <= 15 else "…" + name[-14:]
