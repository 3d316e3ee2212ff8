"""A network that was made of another one: what was gained and lost, what was cut where, the bits of its layers."""

from __future__ import annotations

from html import escape

from nas.report.contents import METRICS, Contents, metric_names
from nas.report.figures import kept_figure, sensitivity_figure
from nas.report.parts import NOTHING, Section, code, figure, folded, number, quiet, share_bar, table, verdict
from nas.report.pruning import stages_of
from nas.report.quantization import Json, Quantization
from nas.report.words import change, duration, format_name, name_of, scored, show

MADE = {"prune": "pruned", "quantize": "quantized", "compress": "compressed"}


def original(contents: Contents) -> Section | None:
    """The original and the delivered network side by side, and the accuracy after each stage."""
    pruning = contents.pruning
    if pruning is None:
        return None
    best = contents.best.metrics
    names = [n for n in metric_names([contents.best]) if n in pruning.metrics and n in METRICS]
    rows = [
        [
            escape(name_of(n)),
            escape(scored(contents, n, pruning.metrics[n])),
            escape(scored(contents, n, best[n])),
            change(n, pruning.metrics[n], best[n]),
        ]
        for n in names
    ]
    made = MADE.get(str(contents.config.get("command")), "delivered")
    content = table(f"The original and the {made} network", ["metric", "#original", f"#{made}", "#change"], rows)
    known = [s for s in stages_of(pruning, contents.best.key) if s.val_accuracy is not None]
    if len(known) > 1:
        stages = [[escape(s.name), number("val_accuracy", s.val_accuracy)] for s in known]
        content += "<h3>Accuracy after each stage</h3>" + table("Stages", ["stage", "#validation accuracy"], stages)
    if pruning.slower:
        content += f"<p>Not faster: {escape(pruning.slower)}.</p>"
    if pruning.left_out:
        content += "<h3>Levels that were left out</h3>" + "".join(f"<p>{escape(reason)}</p>" for reason in pruning.left_out)
    return Section("original", f"Original: {escape(pruning.name)}", content)


def kept(contents: Contents) -> Section | None:
    """The share of its channels that each group kept."""
    pruning = contents.pruning
    if pruning is None or not pruning.kept:
        return None
    removed = f"<p>Blocks removed: {escape(', '.join(pruning.removed))}.</p>" if pruning.removed else ""
    note = quiet(
        "Channels that each group of layers kept, in order of execution; a group is named after the first layer that writes it."
    )
    drawing = figure("kept", "Share of its channels that each group kept", kept_figure(pruning), "figure low")
    rows = [[code(k.group), str(k.kept), str(k.width), f"{k.share:.0%}"] for k in pruning.kept]
    listed = folded(f"{len(rows)} groups", table("Groups of channels", ["group", "#kept", "#of", "#share"], rows))
    return Section("kept", "Channels that were kept", f"{removed}{drawing}{note}{listed}")


def passes(contents: Contents) -> Section | None:
    """What each pass of `nas compress` left."""
    found = contents.passes
    if not found:
        return None
    names = [m for m in METRICS if any(m in p.get("metrics", {}) for p in found)]
    rows = [
        [
            escape(str(p["name"])),
            *(number(m, p.get("metrics", {}).get(m)) for m in names),
            duration(p["seconds"]) if p.get("seconds") is not None else NOTHING,
            verdict(bool(p.get("ok", True)), ("done", "failed")),
        ]
        for p in found
    ]
    headings = ["pass", *(f"#{escape(name_of(m))}" for m in names), "#time", "verdict"]
    return Section("passes", "Passes", table("Passes", headings, rows))


def quantization(contents: Contents) -> Section | None:
    """The network at each precision, bits and sensitivity by layer, and what costs most accuracy."""
    found = contents.quantization
    if found is None:
        return None
    content = _precisions(found)
    if found.costly:
        rows = [[code(c["layer"]), share_bar(c.get("share")), escape(str(c.get("reason", "")))] for c in found.costly]
        content += "<h3>What takes the time</h3>" + table("Costly layers", ["layer", "#share of the time", "~reason"], rows)
    content += _where(found)
    if found.layers:
        content += "<h3>Bits and sensitivity by layer</h3>"
        if any(x.get("sensitivity") is not None for x in found.layers):
            label = "Sensitivity of each layer to quantization"
            content += figure("sensitivity", label, sensitivity_figure(found.layers), "figure low")
        headings = ["layer", "#weights", "#activations", "#parameters", "#multiply-adds", "#sensitivity"]
        content += folded(f"{len(found.layers)} layers", table("Layers", headings, [_layer(x) for x in found.layers]))
    return Section("quantization", "Quantization", content)


def _where(found: Quantization) -> str:
    if not found.where:
        return ""
    rows = [
        [escape(str(w["runs"])), code(w["op"]), str(w["count"]), share_bar(w.get("share")), escape(", ".join(w["names"]))]
        for w in found.where
    ]
    headings = ["runs as", "operator", "#how many", "#share of the time", "~slowest"]
    return "<h3>What runs where</h3>" + folded(f"{len(rows)} kinds of operators", table("Operators", headings, rows))


def _precisions(found: Quantization) -> str:
    if not found.precisions:
        return ""
    rows = []
    for p in found.precisions:
        known = {name: p.get(name) for name in ("latency_ms", "latency_spread", "test_accuracy", "size_bytes")}
        spread = f" ± {show('latency_ms', known['latency_spread'])}" if known["latency_spread"] is not None else ""
        how = "simulated" if p.get("simulated") else "timed" if known["latency_ms"] is not None else NOTHING
        cells = [
            number("latency_ms", known["latency_ms"]) + spread,
            *(number(m, known[m]) for m in ("test_accuracy", "size_bytes")),
        ]
        rows.append([escape(str(p["precision"])), *cells, how, escape(str(p.get("note", "")))])
    headings = ["precision", "#latency", "#test accuracy", "#stored weights", "how", "~note"]
    note = quiet("Spread is the interquartile range.") if any(p.get("latency_spread") for p in found.precisions) else ""
    return table("Precisions", headings, rows) + note


def _layer(layer: Json) -> list[str]:
    bits = [
        escape(format_name(str(layer[name]))) if layer.get(name) else NOTHING for name in ("weight_bits", "activation_bits")
    ]
    return [
        code(layer["name"]),
        *bits,
        *(number(name, layer.get(name)) for name in ("params", "macs")),
        number("sensitivity", layer.get("sensitivity")),
    ]
