"""What the report says of a quantized network, as summary.json has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Quantization:
    """Layers with bits and sensitivity, the network at each precision, what costs the time, and what its file runs as."""

    layers: tuple[Json, ...]
    precisions: tuple[Json, ...]
    costly: tuple[Json, ...]
    where: tuple[Json, ...] = ()

    @property
    def bits(self) -> dict[str, str]:
        """Width of the weights of each layer, in bits."""
        return {str(x["name"]): str(x["weight_bits"]) for x in self.layers}


def read_quantization(summary: Json) -> Quantization | None:
    """None for a run that quantized nothing, or has not ended."""
    found = summary.get("quantization")
    if found is None:
        return None
    return Quantization(*(tuple(found.get(name, ())) for name in ("layers", "precisions", "costly", "where")))
