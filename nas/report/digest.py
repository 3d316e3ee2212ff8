"""The report as report.md: what one pastes into an issue or a wiki."""

from __future__ import annotations

from nas.accuracy import with_error
from nas.report.augmentation import augmentation_words
from nas.report.contents import METRICS, Contents, metric_names
from nas.report.explorer import extract_command
from nas.report.latency import by_attempt
from nas.report.markdown import block, code, line, section, table, text, verdict
from nas.report.sections.classes import MATRIX, balanced_sentence, tested
from nas.report.sections.top import notices
from nas.report.words import ABSENT, answer, change, changes_of, duration, latency_sentence, name_of, provenance, scored, show


def report_markdown(contents: Contents) -> str:
    """Answer, budgets, best network, original, front, latency, and how it was made."""
    parts = [
        f"# {text(contents.name)}\n\n**{text(answer(contents))}**",
        "\n".join(f"> {text(note)}" for note in notices(contents)),
        section("Budget", _budgets(contents)),
        section("Best network" if contents.finished else "Best network so far", _best(contents)),
        section("Accuracy by class", _classes(contents)),
        section("Original", _original(contents)),
        section("Pareto front", _front(contents)),
        section("Predicted against measured latency", _latency(contents)),
        section("How it was made", _made(contents)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _budgets(contents: Contents) -> str:
    rows = [
        [b.text, name_of(b.metric), show(b.metric, b.limit), show(b.metric, b.value), verdict(b.ok)] for b in contents.budgets
    ]
    return table(("budget", "limits", "limit", "value", "verdict"), rows)


def _best(contents: Contents) -> str:
    best = contents.best
    rows = [
        [name_of(m), scored(contents, m, best.metrics[m]), provenance(m, contents.taken.get(m))] for m in metric_names([best])
    ]
    return f"{code(best.key)}\n\n{table(('metric', 'value', 'how it was taken'), rows)}"


def _classes(contents: Contents) -> str:
    test = tested(contents)
    if not test:
        return ""
    rows = [
        [r["name"], r["images"], with_error(r["accuracy"], r["images"], 1) if r["images"] else ABSENT]
        for r in test["per_class"]
    ]
    parts = [balanced_sentence(test), table(("class", "test images", "accuracy"), rows)]
    matrix = test.get("confusion", ())
    if matrix and len(matrix) <= MATRIX:
        names = [text(r["name"]) for r in test["per_class"]]
        lines = [[r["name"], *counts] for r, counts in zip(test["per_class"], matrix, strict=True)]
        parts.append(f"True classes by row, what the network says by column:\n\n{table(('', *names), lines)}")
    elif test["confused"]:
        parts.append(table(("true class", "what the network says", "test images"), test["confused"]))
    return "\n\n".join(parts)


def _original(contents: Contents) -> str:
    if contents.pruning is None:
        return ""
    before, after = contents.pruning.metrics, contents.best.metrics
    names = [n for n in metric_names([contents.best]) if n in before and n in METRICS]
    rows = [
        [name_of(n), scored(contents, n, before[n]), scored(contents, n, after[n]), change(n, before[n], after[n])]
        for n in names
    ]
    left_out = "".join(f"\n\nLeft out: {text(reason)}" for reason in contents.pruning.left_out)
    slower = f"\n\nNot faster: {text(contents.pruning.slower)}." if contents.pruning.slower else ""
    return f"{text(contents.pruning.name)}\n\n{table(('metric', 'original', 'now', 'change'), rows)}{slower}{left_out}"


def _front(contents: Contents) -> str:
    names = [m for m in metric_names(contents.front) if m in {*METRICS, *(b.metric for b in contents.budgets)}]
    rows = [
        [f"{n.key} ★" if n.key == contents.best.key else n.key, *(scored(contents, m, n.metrics.get(m)) for m in names)]
        for n in contents.front
    ]
    command = line(extract_command(contents, "KEY"))
    told = f"\n\nAny of them is delivered with {code(command)}." if command else ""
    return f"![validation accuracy against cost](front.svg)\n\n{table(('network', *map(name_of, names)), rows)}{told}"


def _latency(contents: Contents) -> str:
    if not contents.timings:
        return ""
    picture = "\n\n![measured against predicted latency](latency.png)" if by_attempt(contents.timings) else ""
    return f"{text(latency_sentence(contents))}{picture}"


def _made(contents: Contents) -> str:
    config, data = contents.config, contents.config.get("data", {})
    known = {
        "data": data.get("name"),
        "training images": augmentation_words(config.get("augmentation", {})),
        "data fingerprint": data.get("fingerprint"),
        "seed": config.get("seed"),
        "changed on resume": changes_of(config),
        "device": config.get("device", {}).get("name"),
        "latency target": contents.target,
        "duration": duration(contents.summary["seconds"]) if "seconds" in contents.summary else "",
        "versions": ", ".join(f"{name} {number}" for name, number in config.get("versions", {}).items()),
    }
    facts = "\n".join(f"- {name}: {text(value)}" for name, value in known.items() if value not in (None, ""))
    command = block(config["argv"]) if "argv" in config else ""
    return "\n\n".join(part for part in (command, facts) if part)
