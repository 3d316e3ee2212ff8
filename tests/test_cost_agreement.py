import pytest
import torch
from traced import Graph

from nas.cost.agreement import check_counts
from nas.cost.trace import trace
from nas.errors import InvalidSetting


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Graph(lambda m, x: torch.fft.fft2(m.conv(x)).abs()), "what fft_fft2 .* costs is not known.*docs/costs.md"),
        (Graph(lambda m, x: m.conv(x) if isinstance(x, torch.Tensor) else m.second(m.conv(x))), "7,936 .* traced and 6,912"),
    ],
)
def test_what_could_not_be_verified_is_refused(module, message):
    example = torch.zeros(2, 3, 8, 8)
    with pytest.raises(InvalidSetting, match=message):
        check_counts("net", module, trace(module, example), example)


def test_what_agrees_passes():
    module, example = Graph(lambda m, x: m.second(m.conv(x))), torch.zeros(2, 3, 8, 8)
    check_counts("net", module, trace(module, example), example)


def _written(m, x):
    y = m.conv(x)
    z = y.clone()
    z[:, :2] = y[:, 2:] * 2
    z[:, :, 1:] += y[:, :, :-1]
    z[z < 0] = 0
    return m.second(z)


def _gathered(m, x):
    y = m.conv(x)
    z = torch.zeros_like(y)
    z[:, :2], z[:, 2:] = y[:, 2:], m.second(y)[:, :2]
    return m.second(z)


@pytest.mark.parametrize("run", [_written, _gathered])
def test_what_is_written_into_slices_is_traced(run):
    module, example = Graph(run).eval(), torch.randn(2, 3, 8, 8)
    plan = trace(module, example)
    check_counts("net", module, plan, example)
    # what is read afterwards hangs on what was written
    named = {layer.name: layer for layer in plan.layers}
    reached, left = set(), [plan.layers[-1].name]
    while left:
        name = left.pop()
        if name in named and name not in reached:
            reached.add(name)
            left += named[name].inputs
    assert {layer.name for layer in plan.layers if layer.op == "conv"} <= reached
