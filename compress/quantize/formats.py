"""Number formats that weights and activations are rounded to, by name. Adding one is adding a line in FORMATS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nas.errors import InvalidSetting, not_known

FLOAT = "fp32"
INT8 = "8"


@dataclass(frozen=True)
class Format:
    """So many bits a value: integers, or the floating-point type `dtype`."""

    bits: int
    dtype: torch.dtype | None = None

    @property
    def signed(self) -> tuple[int, int]:
        """Least and greatest integer of weights; -128 is left out of 8 bits, and -2 is in the four values of 2 bits."""
        half = 1 << (self.bits - 1)
        return (-half if self.bits < 8 else 1 - half), half - 1

    @property
    def unsigned(self) -> tuple[int, int]:
        """Least and greatest integer of activations."""
        return 0, (1 << self.bits) - 1


FORMATS: Mapping[str, Format] = {
    **{str(bits): Format(bits) for bits in (2, 3, 4, 6, 8, 16)},
    "fp8-e4m3": Format(8, torch.float8_e4m3fn),
    "fp8-e5m2": Format(8, torch.float8_e5m2),
    FLOAT: Format(32, torch.float32),
}


def format_of(name: str) -> Format:
    """The format of a name. Raises InvalidSetting."""
    if name not in FORMATS:
        raise InvalidSetting(f"number format {not_known(name, FORMATS)}")
    return FORMATS[name]


def runs_in_int8(name: str) -> bool:
    """Whether kernels for 8-bit integers run the format: that many bits or fewer, in containers of 8."""
    found = FORMATS[name]
    return found.dtype is None and found.bits <= 8
