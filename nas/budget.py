"""Metric, Cost, Budget: what a network costs and what it may cost, as values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from nas.errors import InvalidBudget
from nas.numbers import rounded

UNITS = "FLOPs, MACs (both: multiply-adds), params, B (stored weights), Bpeak (activation memory), ms, mJ, BitOps"
_PREFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
# unit -> metric; the prefix is part of the number, but for ms and mJ, which are units of their own
_UNIT = {"flops": "macs", "macs": "macs", "params": "params", "b": "size_bytes", "bpeak": "peak_bytes", "bitops": "bitops"}
_WHOLE_UNIT = {"ms": "latency_ms", "mj": "energy_mj"}
_PERCENT_OF = {"": "macs", "flops": "macs", "macs": "macs", "params": "params", "latency": "latency_ms", "b": "size_bytes"}
_GRAMMAR = re.compile(
    r"(?P<number>-?\d+(?:\.\d+)?(?:e\d+)?)\s*(?P<unit>[a-z]*|%[a-z]*)(?:@(?P<target>[\w.-]+))?", re.IGNORECASE
)
# more than this no network takes: a budget beyond it is a slip
_MOST = {"macs": 1e15, "params": 1e13, "size_bytes": 1e14, "peak_bytes": 1e14, "bitops": 1e18}
LABEL = {
    "macs": ("multiply-adds", "FLOPs"),
    "params": ("parameters", "params"),
    "size_bytes": ("stored weights", "B"),
    "peak_bytes": ("peak activation memory", "B"),
    "activations": ("activations", ""),
    "latency_ms": ("latency", "ms"),
    "energy_mj": ("energy", "mJ"),
    "bitops": ("bit operations", "BitOps"),
}
# how a budget on each metric is written; the inverse of what Budget.parse reads
_WRITTEN = {metric: unit for metric, (_, unit) in LABEL.items() if unit} | {"peak_bytes": "Bpeak"}


@dataclass(frozen=True)
class Metric:
    """A number with where it came from; `spread` is an interquartile range in the same unit."""

    value: float
    unit: str
    method: str
    spread: float | None = None
    context: str = ""


@dataclass(frozen=True)
class Cost:
    """Named metrics, and the operations that could not be counted: a cost that misses them is not known."""

    metrics: Mapping[str, Metric] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()

    def value(self, name: str) -> float | None:
        """The number of one metric, or None if it was not taken."""
        return self.metrics[name].value if name in self.metrics else None

    def values(self) -> dict[str, float]:
        """All numbers by name."""
        return {n: m.value for n, m in self.metrics.items()}


@dataclass(frozen=True)
class Violation:
    """How a cost breaks one budget; `excess` is relative to the limit, infinite where the value is not known."""

    text: str
    excess: float


@dataclass(frozen=True)
class Budget:
    """An upper limit of one metric. A relative budget holds a fraction of an original network's cost until resolved.

    `aim` is the part of the limit that a search may use, where what it knows of the metric is noisy.
    """

    text: str
    metric: str
    limit: float
    relative: bool = False
    aim: float = 1.0

    @staticmethod
    def parse(text: str) -> Budget:
        """Read `300MFLOPs`, `3Mparams`, `2MB`, `320KBpeak`, `5ms`, `15ms@pixel3`, `5mJ`, `5GBitOps`, `50%`, `60%latency`.

        Prefixes k, M, G are powers of 1000. Raises InvalidBudget.
        """
        match = _GRAMMAR.fullmatch(text.strip())
        if not match:
            raise InvalidBudget(_explain(text))
        unit, target = match["unit"].lower(), match["target"]
        metric, factor = _read_unit(text, unit)
        relative = unit.startswith("%")
        limit = float(match["number"]) / 100 if relative else float(match["number"]) * factor
        if not (limit > 0 and math.isfinite(limit)):
            raise InvalidBudget(_explain(text, "is not positive and finite"))
        most = _MOST.get(metric, math.inf)
        if not relative and limit > most:
            raise InvalidBudget(_explain(text, f"is more than any network takes (at most {format_value(metric, most)})"))
        if target and metric not in ("latency_ms", "energy_mj"):
            raise InvalidBudget(_explain(text, f"names the target {target!r}, and only ms and mJ depend on a target"))
        return Budget(text, f"{metric}@{target}" if target else metric, limit, relative)

    def resolve(self, original: Cost) -> Budget:
        """Turn a relative budget into an absolute one. Raises InvalidBudget if the original's metric is not known."""
        if not self.relative:
            return self
        value = original.value(self.metric)
        if original.uncounted:
            raise InvalidBudget(
                f"budget {self.text!r} cannot be judged: what {', '.join(original.uncounted)} costs is not known, and a sum "
                "without it is no cost; compute it by operations that docs/costs.md lists"
            )
        if value is None or not (value > 0 and math.isfinite(value)):
            raise InvalidBudget(
                f"budget {self.text!r} is relative to the original's {self.metric}, which is not known; give an absolute budget"
            )
        return replace(self, limit=self.limit * value, relative=False)

    def check(self, cost: Cost) -> Violation | None:
        """None if `cost` keeps this budget. Unknown is not zero: a missing, NaN or partly counted metric breaks it."""
        value = cost.value(self.metric)
        if value is None or not math.isfinite(value):
            return Violation(f"{self.metric} is not known, so {self.text} is not shown to be kept", math.inf)
        if cost.uncounted:
            return Violation(f"{self.metric} misses {', '.join(cost.uncounted)}", math.inf)
        limit = self.limit * self.aim
        if value > limit:
            part = f"{self.aim:.0%} of " if self.aim < 1 else ""
            return Violation(f"{format_value(self.metric, value)} > {part}{self.text}", (value - limit) / limit)
        return None


def check(budgets: Iterable[Budget], cost: Cost) -> list[Violation]:
    """All violations of several budgets, which hold at once."""
    return [v for v in (b.check(cost) for b in budgets) if v]


def share(budgets: Iterable[Budget], cost: Cost) -> float:
    """What `cost` takes of the tightest budget, 1 at its limit: 0 without budgets, infinite where a metric is not known."""
    values = ((b.limit, cost.value(b.metric)) for b in budgets)
    return max((math.inf if value is None else value / limit for limit, value in values), default=0.0)


def excess(budgets: Iterable[Budget], cost: Cost) -> float:
    """Total relative excess over the budgets: 0 if all are kept, infinite if one cannot be judged."""
    return math.fsum(v.excess for v in check(budgets, cost))


def parse_all(texts: Iterable[str]) -> tuple[Budget, ...]:
    """Parse several budgets. Raises InvalidBudget if two limit the same metric."""
    budgets = tuple(Budget.parse(t) for t in texts)
    seen: dict[str, Budget] = {}
    for budget in budgets:
        if budget.metric in seen:
            both = f"{seen[budget.metric].text!r} and {budget.text!r}"
            raise InvalidBudget(f"budgets {both} both limit {budget.metric}; keep one")
        seen[budget.metric] = budget
    return budgets


def format_value(metric: str, value: float) -> str:
    """Write a cost for people: `2.97 MFLOPs`, `512 kB`, `1.31 ms`."""
    unit = LABEL.get(metric.split("@")[0], ("", ""))[1]
    if unit in ("ms", "mJ"):
        return f"{rounded(value)} {unit}"
    power = max(0, min(3, int(math.log10(abs(value)) // 3))) if value else 0
    scaled = value / 1000**power
    digits = f"{value:.0f}" if not power else f"{scaled:.4g}" if abs(scaled) < 9999.5 else rounded(scaled, 4)
    return f"{digits} {['', 'k', 'M', 'G'][power]}{unit}".strip()


def nearest_budget(metric: str, value: float) -> str:
    """Write the smallest budget of three digits that `value` keeps, as Budget.parse reads it: `2.98MFLOPs`."""
    name, _, target = metric.partition("@")
    unit = _WRITTEN[name] + (f"@{target}" if target else "")
    power = 0 if name in ("latency_ms", "energy_mj") else max(0, min(3, int(math.log10(max(value, 1)) // 3)))
    scaled = value / 1000**power
    step = 10.0 ** (math.floor(math.log10(scaled)) - 2) if scaled > 0 else 1.0
    steps = math.ceil(scaled / step)
    texts = [f"{float(f'{(steps + more) * step:.3g}'):.12g}{['', 'k', 'M', 'G'][power]}{unit}" for more in (0, 1)]
    # rounding of the decimal text can fall below the value by an ulp; the next step cannot
    return texts[0] if steps and Budget.parse(texts[0]).limit >= value else texts[1]


def _read_unit(text: str, unit: str) -> tuple[str, float]:
    """Metric of a lower-case unit, and the factor of its prefix."""
    if unit.startswith("%") and unit[1:] in _PERCENT_OF:
        return _PERCENT_OF[unit[1:]], 1.0
    if unit in _WHOLE_UNIT:
        return _WHOLE_UNIT[unit], 1.0
    for name, metric in _UNIT.items():
        if unit.endswith(name) and unit.removesuffix(name) in _PREFIX:
            return metric, _PREFIX[unit.removesuffix(name)]
    raise InvalidBudget(_explain(text))


def _explain(text: str, reason: str = "was not understood") -> str:
    shares = "50%, 50%params, 50%B, 50%latency"
    return f"budget {text!r} {reason}; write a number and a unit, like 300MFLOPs. Units: {UNITS}; or {shares}"
