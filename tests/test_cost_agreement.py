import pytest
import torch
from traced import Graph

from nas.cost.agreement import check_counts, check_known
from nas.cost.recount import recount
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


def test_what_tracing_leaves_behind_costs_nothing():
    class Cast(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3, 5)

        def forward(self, x):
            return self.head(x.to(torch.float64).to(torch.float32).mean((2, 3)))

    example = torch.zeros(1, 3, 8, 8)
    traced = torch.export.export(Cast().eval(), (example,)).module()
    module = torch.fx.GraphModule(traced, traced.graph)  # as networks of integers are made
    assert any("_assert_tensor_metadata" in str(node.target) for node in module.graph.nodes)
    found = recount(module, example)
    assert not found.uncounted and found.value("macs") == 15


def test_names_of_what_is_not_known_are_told():
    check_known("net", ())
    with pytest.raises(InvalidSetting, match="net: what aten::one, aten::two costs is not known"):
        check_known("net", ("aten::one", "aten::two"))
