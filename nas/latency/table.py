"""LatencyTable: measured times of units, and all that says where they came from. Kept as CSV below one line of JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nas import files
from nas.errors import CorruptRun, InvalidSetting
from nas.kinds import TableHead
from nas.latency.target import Target
from nas.records import checked

SCHEMA = 1
MOST_MS = 1e12  # that a unit takes, or mJ: no machine was ever so slow, and sums and squares stay finite
COLUMNS = ("key", "latency_ms", "spread_ms", "rounds", "calls", "energy_mj", "note")


class CorruptTable(InvalidSetting):
    """A latency table that cannot be read, or does not hold as many entries as it says."""


@dataclass(frozen=True)
class Entry:
    """Median time of a unit in ms, interquartile range in ms, how often it was measured; energy in mJ where known."""

    latency_ms: float
    spread_ms: float = 0.0
    rounds: int = 0
    calls: int = 0
    energy_mj: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Calibration:
    """A whole network of a space that was measured like the units: its features (see correction.py) and its time in ms."""

    features: Mapping[str, float]
    latency_ms: float
    space: str = ""


@dataclass(frozen=True)
class LatencyTable:
    """Entries by unit key (nas/latency/units.py) for one target.

    `calibration` are the networks that the correction is fitted on; without them a prediction is the plain sum. `made` tells
    of the measurement: date, source, load of the machine, cache size in bytes. `name` is for tables that were published.
    """

    target: Target
    entries: Mapping[str, Entry] = field(default_factory=dict)
    calibration: tuple[Calibration, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def require(self, target: Target, accept: bool = False) -> None:
        """Raise InvalidSetting, naming the difference, if the table is of another target; `accept` lets it pass."""
        difference = target.difference(self.target)
        if difference and not accept:
            raise InvalidSetting(
                f"the latency table {self.name or self.target.slug} is of another target: {difference}; "
                "measure one with nas profile, or add --accept-foreign-table"
            )


def write_table(table: LatencyTable, path: Path) -> None:
    """Write `table` at once or not at all."""
    files.make_folder(path.parent)
    files.replace(path, table_text(table).encode())


def table_text(table: LatencyTable) -> str:
    """The content of a table's file. Numbers keep their shortest exact form."""
    head = {
        "schema": SCHEMA,
        "name": table.name,
        "target": asdict(table.target),
        "entries": len(table.entries),
        "made": dict(table.made),
        "calibration": [{"space": row.space, **row.features, "latency_ms": row.latency_ms} for row in table.calibration],
    }
    text = io.StringIO()
    text.write(f"# {json.dumps(head)}\n")
    rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    rows.writeheader()
    rows.writerows({"key": key, **asdict(entry)} for key, entry in table.entries.items())
    return text.getvalue()


def read_table(path: Path) -> LatencyTable:
    """Read `write_table`. Raises CorruptTable for anything else, InvalidSetting if there is no such file."""
    try:
        first, _, rest = files.read_regular(path).decode("utf-8").partition("\n")
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidSetting(f"there is no latency table {str(path)!r}; measure one with nas profile") from None
    except UnicodeDecodeError:
        raise CorruptTable(f"{str(path)!r} is no latency table: it is not text") from None
    try:
        head = checked(files.from_json(first.removeprefix("# ").encode()), None, repr(str(path)))
        if head["schema"] != SCHEMA:
            raise CorruptTable(f"{str(path)!r} has schema {head['schema']!r}, this netcarver reads {SCHEMA}; measure it again")
        table = _table(checked(head, TableHead, repr(str(path))), _entries(path, rest))
    except (ValueError, KeyError, TypeError, OverflowError, csv.Error, CorruptRun) as error:
        raise CorruptTable(
            f"{str(path)!r} is no latency table ({type(error).__name__}: {error}); its first line is '# ' and a JSON head, "
            f"then come the columns {','.join(COLUMNS)}: restore it, or measure one with nas profile"
        ) from error
    if len(table.entries) != head["entries"]:
        raise CorruptTable(
            f"{str(path)!r} is truncated: it has {len(table.entries)} of {head['entries']} entries; restore it, "
            "or delete it and measure it again with nas profile"
        )
    return table


def _table(head: Mapping[str, Any], entries: Mapping[str, Entry]) -> LatencyTable:
    target = Target(**{f.name: head["target"][f.name] for f in fields(Target)})
    calibration = []
    for row in head["calibration"]:
        features = {name: float(value) for name, value in row.items() if name not in ("latency_ms", "space")}
        calibration.append(Calibration(features, float(row["latency_ms"]), row["space"]))
    return LatencyTable(target, entries, tuple(calibration), head["made"], head["name"])


def _entries(path: Path, text: str) -> dict[str, Entry]:
    reader = csv.DictReader(io.StringIO(text))
    entries: dict[str, Entry] = {}
    for row in reader:
        if None in row or None in row.values():
            raise CorruptTable(f"{str(path)!r} is truncated: line {reader.line_num + 1} is not whole; restore it")
        energy = float(row["energy_mj"]) if row["energy_mj"] else None
        ms, spread = float(row["latency_ms"]), float(row["spread_ms"])
        if not (0 <= ms <= MOST_MS and 0 <= spread <= MOST_MS and 0 <= (energy or 0) <= MOST_MS):
            raise CorruptTable(f"{str(path)!r}, line {reader.line_num + 1}: {row['latency_ms']} ms is no latency; restore it")
        entries[row["key"]] = Entry(ms, spread, int(row["rounds"]), int(row["calls"]), energy, row["note"])
    return entries
