"""The range of each number that a user may give, by the name of its setting: one table for options, TOML files and recipes.

Nothing heavy is imported here: a number out of its range is refused before anything is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from nas.budget import parse_all
from nas.errors import InvalidSetting

MANY = 1_000_000  # of what is counted: more would not end


@dataclass(frozen=True)
class Range:
    """From `least` to `most`; `above` excludes the least."""

    least: float
    most: float
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number, NaN and infinity included, is in the range."""
        finite = isinstance(value, int) or math.isfinite(value)
        return finite and self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        most = f"{self.most:,.12g}"
        return f"more than {self.least:g}, up to {most}" if self.above else f"{self.least:g} to {most}"


RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("epochs", "grow_epochs", "steps", "trials", "batch_size", "repeats"), Range(1, MANY)),
    **dict.fromkeys(("finetune_epochs", "crop", "cutout"), Range(0, MANY)),
    "batch": Range(1, 65_536),
    "round_to": Range(1, 4_096),
    "images": Range(4, 10 * MANY),
    "resolution": Range(1, 8_192),
    "threads": Range(1, 1_024),
    "seed": Range(0, 2**63 - 1),
    "lr": Range(0, 100, above=True),
    "weight_decay": Range(0, 10),
    "clip_norm": Range(0, 1e9, above=True),
    "smoothing": Range(0, 1),
    "mixup": Range(0, 100),
    "sparsity": Range(0, 1),
    "least": Range(0, 1),
    "max_drop": Range(0, 100),
    "min_speedup": Range(0, 1e6),
}
MOST_PIXELS = 64 * MANY  # of one image in all channels: 256 MB in fp32, which every layer has again
LONG = 10**18  # whole numbers from here on are written short


def check_options(options: Mapping[str, object]) -> None:
    """Raise InvalidSetting or InvalidBudget for what a command was given and cannot be, before anything is imported."""
    for name, value in options.items():
        if is_number(value):
            check_number(f"--{name.replace('_', '-')} is", name, value)
        elif name == "shape" and isinstance(value, str):
            check_shape(f"--shape {value}", value)
    budgets = options.get("budget")
    if isinstance(budgets, list | tuple):
        parse_all(text for text in budgets if isinstance(text, str))


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number for people: True is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_number(what: str, name: str, value: float) -> None:
    """Raise InvalidSetting, beginning with `what` and the value, for a number out of the range of the setting `name`."""
    if name in RANGES and not RANGES[name].holds(value):
        raise InvalidSetting(f"{what} {_written(value)}; expected {RANGES[name]}")


def check_shape(what: str, text: str) -> None:
    """Raise InvalidSetting for images CxHxW that no machine runs a network on; other texts are left to who reads them."""
    parts = text.split("x")
    if (
        len(parts) == 3
        and all(part.isdecimal() for part in parts)
        and math.prod(int(part[:12]) for part in parts) > MOST_PIXELS
    ):
        raise InvalidSetting(f"{what} is too large for any network; expected images of at most {MOST_PIXELS:,} numbers")


def _written(value: float) -> str:
    """A number as it was given; of a very long one its length."""
    if isinstance(value, int) and abs(value) >= LONG:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    return repr(value)
