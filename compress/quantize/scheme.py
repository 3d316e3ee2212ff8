"""Scheme: which number format the weights and the input of each layer have, as a value."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from compress.quantize.formats import FLOAT, FORMATS, INT8, format_of
from compress.quantize.graph import Network
from nas.errors import InvalidSetting

_UNIFORM = re.compile(r"w(?P<weights>[\w.-]+?)a(?P<activations>[\w.-]+)")
_ENDS = {"first": 0, "last": -1}


@dataclass(frozen=True)
class Scheme:
    """Formats of weights and inputs by layer name; `others` is the format of values that no layer reads, such as sums."""

    weights: Mapping[str, str]
    inputs: Mapping[str, str]
    others: str = INT8

    def __post_init__(self) -> None:
        """Check the formats. Raises InvalidSetting."""
        for name in {*self.weights.values(), *self.inputs.values(), self.others}:
            format_of(name)

    def of_point(self, network: Network, point: str) -> str:
        """The format of a point: the widest that one of the layers wants that read it, `others` where none does.

        What a rounded layer puts out is rounded, though a layer in fp32 reads it: else its kernel would not be one of integers.
        """
        wanted = [self.inputs[layer.name] for layer in network.layers if layer.source == point]
        widest = max(wanted, key=lambda name: FORMATS[name].bits) if wanted else self.others
        from_integers = any(layer.point == point and self.weights[layer.name] != FLOAT for layer in network.layers)
        return self.others if widest == FLOAT and from_integers else widest

    def to_json(self) -> dict[str, object]:
        """Plain data for quantization.json."""
        return {"weights": dict(self.weights), "inputs": dict(self.inputs), "others": self.others}


def read_precision(text: str) -> tuple[str, str]:
    """Read `int8`, `fp8-e4m3` or `w4a8` as the formats of weights and activations. Raises InvalidSetting."""
    integer = text.removeprefix("int")
    if integer.isdecimal() and integer in FORMATS:
        return integer, integer
    if text in FORMATS and text != FLOAT:
        return text, text
    match = _UNIFORM.fullmatch(text)
    if match and {match["weights"], match["activations"]} == {FLOAT}:
        raise InvalidSetting(f"--precision {text!r} rounds nothing; choose a format of fewer bits for weights or activations")
    if match and match["weights"] in FORMATS and match["activations"] in FORMATS:
        return match["weights"], match["activations"]
    raise InvalidSetting(
        f"--precision {text!r} is not known; choose int8, another format ({', '.join(n for n in FORMATS if n != FLOAT)}), "
        "or one for weights and one for activations, such as w4a8"
    )


def uniform(network: Network, weights: str, activations: str, kept: Mapping[str, str] | None = None) -> Scheme:
    """The same formats for all layers, but for those of `kept`: layer name -> format of its weights and its input."""
    kept = kept or {}
    names = [layer.name for layer in network.layers]
    return Scheme(
        {name: kept.get(name, weights) for name in names},
        {name: kept.get(name, activations) for name in names},
        activations,
    )


def kept_layers(network: Network, wanted: Sequence[str]) -> dict[str, str]:
    """Read `first`, `last`, `NAME` or `NAME=FORMAT`: layers that stay in fp32 or have another format. Raises InvalidSetting."""
    names = [layer.name for layer in network.layers]
    found = {}
    for text, number in zip(wanted, kept_formats(wanted), strict=True):
        name = text.partition("=")[0]
        place = names[_ENDS[name]] if name in _ENDS else name
        if place not in names:
            raise InvalidSetting(f"--keep {text!r}: there is no layer {name!r}; choose first, last, or of {_some(names)}")
        found[place] = number
    return found


def kept_formats(wanted: Sequence[str]) -> list[str]:
    """The format of each layer that is kept. Raises InvalidSetting for one that is not known."""
    found = []
    for text in wanted:
        _, equals, number = text.partition("=")
        if equals and number not in FORMATS:
            raise InvalidSetting(f"--keep {text!r}: {number!r} is no number format; choose one of {', '.join(FORMATS)}")
        found.append(number if equals else FLOAT)
    return found


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:6]
    return ", ".join(shown) + (f", ... ({len(names)} layers)" if len(names) > len(shown) else "")
