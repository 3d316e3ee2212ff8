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
