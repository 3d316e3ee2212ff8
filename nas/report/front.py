"""The Pareto front as front.csv. The only file that imports pandas."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from nas.report.contents import Network, metric_names


def front_csv(front: Sequence[Network]) -> str:
    """One row a network: key, the metrics that were taken, and the choices as one JSON column.

    Numbers are written in full; a metric that a network does not have is an empty cell.
    """
    names = metric_names(front)
    rows = [[n.key, *(n.metrics.get(m) for m in names), json.dumps(dict(n.choices), sort_keys=True)] for n in front]
    # as objects, because a missing integer would turn its whole column into floats
    return pd.DataFrame(rows, columns=["key", *names, "choices"], dtype=object).to_csv(index=False, lineterminator="\n")
