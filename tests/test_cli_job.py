"""What is chosen for a job where the user names nothing."""

import pytest
import torch
from torch import nn

from nas.cli.job import precision
from nas.cost.trace import trace
from nas.errors import InvalidSetting

CPU = torch.device("cpu")


def plan_of(groups: int):
    return trace(nn.Sequential(nn.Conv2d(4, 4, 3, groups=groups)).eval(), torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize(
    ("known", "groups", "expected"),
    [
        ({"amx_bf16": True}, 1, "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, 1, "bf16"),
        ({"avx512_bf16": True}, 4, "fp32"),  # depthwise layers are bound by memory
        ({"avx512_f": True}, 1, "fp32"),
        ({}, 1, "fp32"),
    ],
)
def test_trainings_take_bf16_where_the_processor_multiplies_it(monkeypatch, known, groups, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert precision("auto", CPU, plan_of(groups)) == expected


def test_what_the_user_names_is_taken(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # not every torch can tell
    assert precision("auto", CPU, plan_of(1)) == "fp32"
    assert precision("bf16", CPU, plan_of(4)) == "bf16"
    with pytest.raises(InvalidSetting, match="'fp64' is not known; choose auto, fp32 or bf16"):
        precision("fp64", CPU, plan_of(1))
