"""How metrics are written for people: names, numbers with units, axes, the answer of a run in one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.accuracy import with_error
from nas.budget import LABEL, format_value
from nas.report.contents import VAL_ACCURACY, BudgetRow, Contents, Network
from nas.report.latency import agreement

_ACCURACY = {VAL_ACCURACY: "validation accuracy", "test_accuracy": "test accuracy"}
_SCORES = {**_ACCURACY, "val_loss": "validation loss"}
_VALIDATED = "on the validation images"
_SPLIT = {VAL_ACCURACY: _VALIDATED, "val_loss": _VALIDATED, "test_accuracy": "on the test images, which were read once"}
_TIMED = {"latency_ms", "energy_mj"}
ABSENT = "–"
_PREFIX = {0: "", 1: "k", 2: "M", 3: "G"}


@dataclass(frozen=True)
class Axis:
    """A metric on an axis: values are multiplied by `factor`."""

    metric: str
    label: str
    factor: float

    def of(self, networks: Sequence[Network]) -> list[float]:
        """Coordinates of the networks; NaN, which is not drawn, where the metric is absent."""
        return [self.factor * n.metrics.get(self.metric, math.nan) for n in networks]


def name_of(metric: str) -> str:
    """`multiply-adds`, `validation accuracy`, `latency on pixel3`."""
    base, _, target = metric.partition("@")
    name = _SCORES.get(base) or (LABEL[base][0] if base in LABEL else base.replace("_", " "))
    return f"{name} on {target}" if target else name


def show(metric: str, value: float | None) -> str:
    """`2.91 MFLOPs`, `98.3%`, or a dash where the metric was not taken."""
    if value is None:
        return ABSENT
    if metric.partition("@")[0] not in LABEL:
        return f"{value:.1%}" if metric in _ACCURACY else plain(value)
    return format_value(metric, value)


def images_of(contents: Contents, metric: str) -> int | None:
    """On how many images an accuracy was counted, None where that is not known."""
    test = contents.summary.get("scores", {}).get("test_accuracy", {}).get("images")
    found = {VAL_ACCURACY: contents.config.get("data", {}).get("val"), "test_accuracy": test}.get(metric)
    return found if isinstance(found, int) and found > 0 else None


def scored(contents: Contents, metric: str, value: float | None) -> str:
    """As `show`; an accuracy of this run with its standard error, `98.3% ± 0.7%`."""
    images = images_of(contents, metric)
    return show(metric, value) if value is None or images is None else with_error(value, images, 1)


def kind_of(metric: str) -> str:
    """How the page's scripts write a metric: as a share, a time (or energy), a count with a prefix, or as it is."""
    base = metric.partition("@")[0]
    if base in _ACCURACY:
        return "share"
    if base not in LABEL:
        return "plain"
    return "time" if base in _TIMED else "count"


def unit_of(metric: str) -> str:
    """The unit of a metric, empty for those without."""
    return LABEL.get(metric.partition("@")[0], ("", ""))[1]


def plain(value: float | None) -> str:
    """A number without a unit: integers in full, others to six digits."""
    return ABSENT if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def provenance(metric: str, taken: Mapping[str, Any] | None) -> str:
    """How a metric was taken: method, spread and context of a metric of verify.json, or what is known without one."""
    base, _, target = metric.partition("@")
    if taken is None and base in _TIMED:
        return f"predicted by the latency table{f' of {target}' if target else ''}"
    if taken is None:
        return _SPLIT.get(metric, "counted from the plan")
    spread = f"interquartile range {show(metric, taken['spread'])}" if taken.get("spread") is not None else ""
    return ", ".join(str(p) for p in (taken["method"], spread, taken.get("context")) if p)


def changes_of(config: Mapping[str, Any]) -> str:
    """What a resumed run was told otherwise, such as `lr from 0.1 to 0.01`; empty where it was not."""
    rows = config.get("changes", ())
    return ", ".join(f"{row['option']} from {_default(row['from'])} to {_default(row['to'])}" for row in rows)


def _default(value: object) -> str:
    return "its default" if value is None else str(value)


def how_busy(taken: Mapping[str, Any] | None) -> str:
    """What the context of a timing says of the machine's load, empty where it says nothing."""
    parts = str(taken.get("context", "") if taken else "").split("; ")
    return next((part for part in parts if "load" in part or "busy" in part), "")


def axis_of(metric: str, networks: Sequence[Network], limits: Sequence[float] = ()) -> Axis:
    """An axis in a unit that suits the largest of the values and limits, such as `multiply-adds (M)`."""
    if metric in _ACCURACY:
        return Axis(metric, f"{name_of(metric)} (%)", 100.0)
    unit = LABEL.get(metric.partition("@")[0], ("", ""))[1]
    if unit in ("ms", "mJ"):
        return Axis(metric, f"{name_of(metric)} ({unit})", 1.0)
    largest = max([abs(n.metrics[metric]) for n in networks if metric in n.metrics] + list(limits), default=0.0)
    power = max(0, min(3, int(math.log10(largest) // 3))) if largest > 0 else 0
    unit = _PREFIX[power] + ("B" if unit == "B" else "")
    return Axis(metric, f"{name_of(metric)} ({unit})" if unit else name_of(metric), 1000.0**-power)


def span(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the largest value with some room, for an axis."""
    known = [v for v in values if math.isfinite(v)]
    room = 0.05 * (max(known) - min(known)) or 0.05 * abs(max(known)) or 1.0
    return (min(known) - room, max(known) + room)


def off(error: float | None) -> str:
    """A relative error with its sign, `+1.9%`, or a dash where there is none."""
    return ABSENT if error is None else f"{error:+z.1%}"


def change(metric: str, before: float, after: float) -> str:
    """`-0.4 points` of an accuracy, `-50.1%` or `1.83x faster` of a cost."""
    if metric in _ACCURACY:
        return f"{100 * (after - before):+z.1f} points"
    if metric.partition("@")[0] == "latency_ms" and after < before:
        return f"{before / after:.2f}x faster"
    return f"{after / before - 1:+z.1%}" if before else ABSENT


def format_name(bits: str) -> str:
    """`8 bits` of a number format that is named by its width; `fp8-e4m3` as it is."""
    return f"{bits} bits" if bits.isdecimal() else bits


def predictor_state(attempt: int) -> str:
    """Which predictor it was: that of the table, or one that was fitted to timings of the run `attempt` times."""
    return f"after {attempt} refit{'s' * (attempt > 1)}" if attempt else "before any refit"


def latency_sentence(contents: Contents) -> str:
    """How far the predictions of the timed networks were off, in one sentence."""
    timed, found = len(contents.timings), agreement(contents.timings)
    were = "network was" if timed == 1 else "networks were"
    text = f"{timed} {were} exported and timed{f' on {contents.target}' if contents.target else ''}: "
    if found.mean_absolute_error is None:
        return text + "the latency table predicted none of them."
    predictions = "predictions" if found.networks == timed else f"predictions, known of {found.networks},"
    text += f"{predictions} were {found.mean_absolute_error:.1%} off on average (bias {off(found.bias)})"
    ranks = {"Kendall tau": found.kendall, "Spearman": found.spearman}
    return ", ".join([text, *(f"{name} {value:.2f}" for name, value in ranks.items() if value is not None)]) + "."


def duration(seconds: float) -> str:
    """`8.4 s`, `2 min 5 s`, `3 h 12 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def answer(contents: Contents) -> str:
    """The run in one sentence: `2.91 MFLOPs (multiply-adds), 98.3% test: keeps 3MFLOPs`."""
    metrics = contents.best.metrics
    costs = [b.metric for b in contents.budgets if b.value is not None]
    parts = [_cost_phrase(m, _value(contents, m)) for m in [*costs, *(["macs"] if "macs" not in costs else [])]]
    score = "test_accuracy" if "test_accuracy" in metrics else VAL_ACCURACY
    if score in metrics:
        parts.append(f"{scored(contents, score, metrics[score])} {'test' if score == 'test_accuracy' else 'validation'}")
    sentence = ", ".join(p for p in parts if p)
    verdict = _verdict(contents.budgets)
    return (f"{sentence}: {verdict}" if verdict else sentence) + _beside_plain(contents)


def _beside_plain(contents: Contents) -> str:
    """`; the plain network of the same budget: 91.2% test`, where the run has one."""
    if "baseline" not in contents.summary:
        return ""
    if contents.summary["baseline"]["wins"]:
        searched = contents.summary["searched"]["best"]["metrics"]
        return f"; this is the plain network, the searched one has {show('test_accuracy', searched['test_accuracy'])} test"
    accuracy = contents.summary["baseline"]["best"]["metrics"]["test_accuracy"]
    return f"; the plain network of the same budget has {show('test_accuracy', accuracy)} test"


def _value(contents: Contents, metric: str) -> float | None:
    """The value that the verdict is about, where there is one."""
    return next((b.value for b in contents.budgets if b.metric == metric), contents.best.metrics.get(metric))


def _cost_phrase(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    if metric == "macs":
        return f"{show(metric, value)} (multiply-adds)"
    return show(metric, value) if metric in ("params", "bitops") else f"{show(metric, value)} {name_of(metric)}"


def _verdict(budgets: Sequence[BudgetRow]) -> str:
    kept, broken = [b.text for b in budgets if b.ok], [b.text for b in budgets if not b.ok]
    parts = [f"keeps {' and '.join(kept)}"] * bool(kept) + [f"breaks {' and '.join(broken)}"] * bool(broken)
    return ", ".join(parts)
