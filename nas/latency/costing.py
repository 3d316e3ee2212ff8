"""What tables say of an architecture: plain functions that a search adds to the counted cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from nas.architecture import Architecture
from nas.budget import Metric
from nas.latency.predictor import Predictor
from nas.plan import Plan

CostModel = Callable[[Architecture, Plan], Mapping[str, Metric]]


@dataclass(frozen=True)
class OwnLatency:
    """Latency on this machine: what was measured of a network (by its key), else what the predictor says."""

    predictor: Predictor
    measured: Mapping[str, Metric] = field(default_factory=dict)

    def __call__(self, arch: Architecture, plan: Plan) -> Mapping[str, Metric]:
        """Metrics of one network; `latency_ms` is absent where the table lacks a unit."""
        known = {"latency_ms": self.measured[arch.key]} if arch.key in self.measured else {}
        return {**self.predictor.predict(plan).metrics, **known}

    def refitted(self, plans: Mapping[str, Plan], measured: Mapping[str, Metric]) -> OwnLatency:
        """Fit the correction on measured networks too, and remember them."""
        predictor = self.predictor.refitted([(plans[key], metric.value) for key, metric in measured.items()])
        return replace(self, predictor=predictor, measured={**self.measured, **measured})


@dataclass(frozen=True)
class NamedTable:
    """A table that was published for a device which is not at hand: its metrics are named after it, `latency_ms@pixel3`."""

    name: str
    model: CostModel

    def __call__(self, arch: Architecture, plan: Plan) -> Mapping[str, Metric]:
        """Metrics of one network."""
        return {f"{metric}@{self.name}": value for metric, value in self.model(arch, plan).items()}
