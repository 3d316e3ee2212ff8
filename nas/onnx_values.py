"""ONNX graphs as plain values; nas/onnx_io.py writes and reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, ...]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True)
class Node:
    """One operator. An optional input that is not given is ""; float attributes are stored in 32 bits."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order and the values that they read and write, by name.

    `tensors` are the constants; `inputs` the shapes of what the graph is given, float32; `shapes` those of all other values
    as far as they are known.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, np.ndarray]
    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape] = field(default_factory=dict)
