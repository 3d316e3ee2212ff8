"""Whether both counts of a network agree, before any work on it: what cannot be verified in the end is refused at the start."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn
from torch import Tensor

from nas.cost.counting import count
from nas.cost.recount import recount
from nas.errors import InvalidSetting
from nas.plan import Plan

# what a run tells exactly; stored sizes have names in them, which a plan does not know
COMPARED = {"macs": "multiply-adds", "params": "parameters"}


def check_counts(name: str, module: nn.Module, plan: Plan, example: Tensor) -> None:
    """Count `module` again from a run on `example` (N, C, H, W). Raises InvalidSetting where its plan says something else.

    So does an operation that either of the two cannot count: no budget of such a network could be verified.
    """
    planned, found = count(plan), recount(module, example)
    check_known(name, planned.uncounted or found.uncounted)
    for metric, unit in COMPARED.items():
        traced, run = planned.value(metric), found.value(metric)
        if traced != run:
            raise InvalidSetting(
                f"{name} has {traced:,.0f} {unit} when it is traced and {run:,.0f} when it is run; "
                "make its forward do the same every time, whatever it was called with before and whether or not it is traced"
            )


def check_known(name: str, uncounted: Sequence[str]) -> None:
    """Raise InvalidSetting where it is not known what some operations cost."""
    if uncounted:
        raise InvalidSetting(
            f"{name}: what {', '.join(uncounted)} costs is not known, so that no budget of it could be verified; compute it by "
            "operations of docs/costs.md, or leave it out of the module and apply it to what the network puts out"
        )
