"""The Pareto front as front.csv and front.parquet. The only file that imports pandas."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import pandas as pd

from nas.report.contents import Network, metric_names


def front_csv(front: Sequence[Network]) -> str:
    """One row a network: key, the metrics that were taken, and the choices as one JSON column.

    Numbers are written in full; a metric that a network does not have is an empty cell.
    """
    # as objects, because a missing integer would turn its whole column into floats
    return pd.DataFrame(_columns(front), dtype=object).to_csv(index=False, lineterminator="\n")


def front_parquet(front: Sequence[Network]) -> bytes:
    """The same columns with types: text, 64-bit integers where all numbers of a column are whole, else 64-bit floats."""
    columns = _columns(front)
    frame = pd.DataFrame({name: _typed(name, values) for name, values in columns.items()})
    buffer = io.BytesIO()
    frame.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def _columns(front: Sequence[Network]) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {"key": [n.key for n in front]}
    columns |= {name: [n.metrics.get(name) for n in front] for name in metric_names(front)}
    return columns | {"choices": [json.dumps(dict(n.choices), sort_keys=True) for n in front]}


def _typed(name: str, values: Sequence[object]) -> pd.Series:
    if name in ("key", "choices"):
        return pd.Series(values, dtype="string")
    whole = all(isinstance(v, int) for v in values if v is not None)
    return pd.Series(values, dtype="Int64" if whole else "Float64")
