"""How many images run through a network at once within bounded memory."""

from __future__ import annotations

from math import prod

from torch import Tensor

from compress.export import TRACED_IMAGES
from compress.quantize.graph import Network

# of the values that are kept at one time; what is rounded is held beside what it was, and an operation beside its result
LIMIT = 2**28
BYTES = 4


def images_at_once(network: Network, most: int) -> int:
    """The number of images, at least 1 and at most `most`, whose activations in fp32 take up to LIMIT bytes at one time."""
    return max(1, min(most, LIMIT // max(1, live_bytes(network))))


def live_bytes(network: Network) -> int:
    """Bytes of the activations of one image that are needed at one time, at most, in fp32, run in the order of the graph."""
    nodes = list(network.module.graph.nodes)
    place = {node: number for number, node in enumerate(nodes)}
    last = {node: max((place[user] for user in node.users), default=place[node]) for node in nodes}
    change = [0] * (len(nodes) + 1)
    for node in nodes:
        value = node.meta.get("val")
        if node.op in ("placeholder", "call_function") and isinstance(value, Tensor) and value.ndim:
            size = BYTES * prod(int(side) for side in value.shape) // TRACED_IMAGES
            change[place[node]] += size
            change[last[node] + 1] -= size
    most = live = 0
    for difference in change:
        live += difference
        most = max(most, live)
    return most
