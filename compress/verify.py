"""Prove that the delivered files hold what the run promises: reload, recount, weigh, judge the budgets.

Nothing here trusts the plan or the search: every number that a budget is judged by is taken again from the files.
Unknown is not zero: what cannot be checked has failed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from compress.agreement import NUDGE, TIE, TOLERANCE, Agreement, agreement, slack_of
from compress.export import FORMATS, load_format
from compress.stored import WEIGHTS, load_weights
from nas.budget import Budget, Cost, Metric
from nas.errors import CorruptRun, VerificationFailed

# the verdict itself is written into the same folder, and no part of it
VERDICT = "verify.json"
# this is measured on the delivered network; what a table predicts of it is no proof
MEASURED = ("latency_ms",)

Recount = Callable[[nn.Module, Tensor], Cost]
JsonRow = dict[str, object]


@dataclass(frozen=True)
class VerifyInputs:
    """What is compared: the files of `folder` against the network in memory and the plan's cost.

    `module` is in eval mode on the CPU; `rebuild` gives a plain network of the same architecture with other weights;
    `images` are normalized, (N, C, H, W), N > 0; `recount(module, one image)` counts without the plan. Logits of an exported
    file may differ by `tolerance` of the largest one. `stored` is the size that is promised, by default that of the weights.
    """

    folder: Path
    module: nn.Module
    rebuild: Callable[[], nn.Module]
    images: Tensor
    plan_cost: Cost
    budgets: tuple[Budget, ...]
    latency: Metric | None
    recount: Recount
    tolerance: float = TOLERANCE
    stored: Metric | None = None


def verify(inputs: VerifyInputs) -> dict[str, object]:
    """Check everything and return the content of verify.json; `ok` is true only if all checks and budgets hold."""
    assert len(inputs.images) > 0 and not inputs.module.training
    reloaded, weight_checks = _check_weights(inputs)
    slack = slack_of(inputs.module, inputs.images, inputs.tolerance)
    format_checks = [row for name in FORMATS for row in _check_format(inputs, name, slack)]
    recounted = inputs.recount(reloaded, inputs.images[:1])
    cost = _verified_cost(inputs, recounted)
    checks = weight_checks + format_checks + _check_cost(inputs.plan_cost, cost)
    budgets = [_judge(budget, cost) for budget in inputs.budgets]
    return {
        "ok": all(row["ok"] for row in checks + budgets),
        "checks": checks,
        "budgets": budgets,
        "metrics": {name: vars(metric) for name, metric in cost.metrics.items()},
        "files": digests(inputs.folder),
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that a network is loaded from or built by: all that describe it and its formats."""
    found = sorted(path for path in folder.iterdir() if path.suffix == ".json" or path.name.startswith("model."))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in found if p.is_file() and p.name != VERDICT}


# -- same answers


def _check_weights(inputs: VerifyInputs) -> tuple[nn.Module, list[JsonRow]]:
    """Reload the weights into a new network, which must give exactly the same logits."""
    reloaded = inputs.rebuild().cpu().eval()
    name = "safetensors: largest logit difference"
    try:
        load_weights(reloaded, inputs.folder / WEIGHTS)
        result = agreement(inputs.module, reloaded, inputs.images)
    except (CorruptRun, VerificationFailed) as error:
        return reloaded, [_row(name, False, None, 0.0, str(error))]
    return reloaded, [_row(name, result.max_difference == 0.0, result.max_difference, 0.0, f"exact, {_images(result)}")]


def _check_format(inputs: VerifyInputs, name: str, slack: float) -> list[JsonRow]:
    """Reload one exported file, which must give the same classes and the same logits to within `slack` of the largest one.

    Images whose class is a tie are left out of the first check, counted in its detail, and held to the second check like all
    others.
    """
    titles = (f"{name}: same class", f"{name}: largest logit difference")
    try:
        loaded = load_format(name, inputs.folder / f"model{FORMATS[name].suffix}")
        result = agreement(inputs.module, loaded, inputs.images, slack=slack)
    except VerificationFailed as error:
        return [_row(title, False, None, None, str(error)) for title in titles]
    near = f"{result.ties} of them ties within {max(TIE, slack):.3g} of the largest logit"
    ties = f"{_images(result)}, {near}, which are left out"
    most = f"at most {slack:.3g} of the largest logit, {result.scale:.4g}"
    if slack > inputs.tolerance:
        most += f": a change of the images by {NUDGE:g} moves the network's own logits by half of that or more"
    return [
        _row(titles[0], result.decided_agreement == 1.0, result.decided_agreement, 1.0, ties),
        _row(titles[1], result.max_difference <= result.limit, result.max_difference, result.limit, most),
    ]


# -- same cost


def _verified_cost(inputs: VerifyInputs, recounted: Cost) -> Cost:
    """What is known of the delivered network: counted again, weighed and measured; the plan only for what is derived."""
    metrics = {n: m for n, m in inputs.plan_cost.metrics.items() if n not in ("macs", "params", "size_bytes", *MEASURED)}
    metrics |= {n: m for n, m in recounted.metrics.items() if n in ("macs", "params")}
    weights = inputs.folder / WEIGHTS
    if inputs.stored is not None:
        metrics["size_bytes"] = inputs.stored
    elif weights.is_file():
        metrics["size_bytes"] = Metric(weights.stat().st_size, "B", f"size of {WEIGHTS}")
    if inputs.latency is not None:
        metrics["latency_ms"] = inputs.latency
    return replace(recounted, metrics=metrics)


def _check_cost(plan: Cost, cost: Cost) -> list[JsonRow]:
    """The cost that the search judged by must be that of the delivered network."""
    rows = [
        _row(f"{name} as planned", _equal(cost.value(name), plan.value(name)), cost.value(name), plan.value(name), detail)
        for name, detail in (
            ("macs", "multiply-adds, counted again on the reloaded network"),
            ("params", "parameters, counted again on the reloaded network"),
            ("size_bytes", cost.metrics["size_bytes"].method if "size_bytes" in cost.metrics else f"no {WEIGHTS}"),
        )
    ]
    missed = ", ".join(cost.uncounted) or "none"
    return [*rows, _row("uncounted operations", not cost.uncounted, len(cost.uncounted), 0, missed)]


def _judge(budget: Budget, cost: Cost) -> JsonRow:
    violation = budget.check(cost)
    row: JsonRow = {
        "text": budget.text,
        "metric": budget.metric,
        "limit": budget.limit,
        "value": cost.value(budget.metric),
        "ok": violation is None,
    }
    return row if violation is None else {**row, "detail": violation.text}


# -- parts


def _row(name: str, ok: bool, value: float | None, expected: float | None, detail: str) -> JsonRow:
    return {"name": name, "ok": ok, "value": _finite(value), "expected": _finite(expected), "detail": detail}


def _finite(value: float | None) -> float | None:
    """NaN and infinity are no JSON, and no number that anything could be judged by."""
    return value if value is not None and math.isfinite(value) else None


def _equal(value: float | None, expected: float | None) -> bool:
    return value is not None and value == expected


def _images(result: Agreement) -> str:
    return f"{result.images} images, in batches of {', '.join(map(str, result.batches[:-1]))} and {result.batches[-1]}"
