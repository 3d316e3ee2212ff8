"""Numbers as people write them: no exponents, thousands apart, large counts in words."""

from __future__ import annotations

import math

_WORDS = {6: "million", 9: "billion", 12: "trillion", 15: "quadrillion"}
_LARGEST = 18  # powers of ten that have a word which is widely known end here


def rounded(value: float, digits: int = 3) -> str:
    """A number to so many digits: `4,660`, `13.6`, `0.0000123`; NaN and infinity by name."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, places):,.{max(0, places)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def counted(number: float) -> str:
    """A count in words: `467 million`, `1,296`, `about 10^27`."""
    if number < 1e6:
        return f"{number:,.0f}"
    power = math.floor(math.log10(number))
    if power >= _LARGEST:
        return f"about 10^{round(math.log10(number))}"
    step = power - power % 3
    text = rounded(number / 10**step)
    return f"{text} {_WORDS[step]}" if text != "1,000" else f"1 {_WORDS.get(step + 3, '000 quadrillion')}"
