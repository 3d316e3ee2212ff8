"""How many architectures a second are counted (multiply-adds and parameters), on one core, with a warm table.

Run: python -m benchmarks.count_speed
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from nas.cost.table import CostTable
from nas.seeding import numpy_rng
from search_spaces import SPACES
from search_spaces.staged import DataShape

ARCHITECTURES = 20_000
REPEATS = 9
GOAL = 50_000  # architectures a second, from Architecture objects


def rates(work: Callable[[], object]) -> np.ndarray:
    """Architectures a second of each repeat; the first run, which fills the table, is left out."""
    work()
    result = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        result.append(ARCHITECTURES / (time.perf_counter() - start))
    return np.array(result)


def main() -> None:
    family = SPACES["mobilenet"]
    space = family.make(DataShape(3, 224, 1000), family.macros[0], 1.0, family.options())
    rng = numpy_rng(0, "count_speed")
    architectures = [space.sample(rng) for _ in range(ARCHITECTURES)]
    encoded = space.encode(architectures)
    table = CostTable(space)
    measured = {
        "architectures": rates(lambda: table.totals(space.encode(architectures))),
        "encoded rows": rates(lambda: table.totals(encoded)),
    }
    rows = {name: [round(float(x)) for x in np.percentile(r, (50, 25, 75))] for name, r in measured.items()}
    title = f"{ARCHITECTURES:,} architectures of {space.id} ({len(space.choices)} choices), {REPEATS} repeats, one core"
    shown = Table("counted from", "median a second", "quartiles", title=title)
    for name, (median, low, high) in rows.items():
        shown.add_row(name, f"{median:,}", f"{low:,} to {high:,}")
    Console().print(shown)
    result = {
        "benchmark": "count_speed",
        "unit": "architectures per second",
        "architectures": ARCHITECTURES,
        "repeats": REPEATS,
        "from_architectures": dict(zip(("median", "low_quartile", "high_quartile"), rows["architectures"], strict=True)),
        "from_encoded": dict(zip(("median", "low_quartile", "high_quartile"), rows["encoded rows"], strict=True)),
        "goal": GOAL,
        "ok": rows["architectures"][0] >= GOAL,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
