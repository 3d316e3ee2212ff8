"""Operations that ONNX does not have are traced as others that give the same numbers."""

import pytest
import torch
import torch.nn.functional as F
from networks import images
from torch import nn

from compress.agreement import agreement
from compress.export import load_format, write_format
from compress.portable import Portable
from nas.cli.checking import deliverable
from nas.errors import InvalidSetting


class Own(nn.Module):
    """A filter of each image's own: a convolution of as many groups as there are images."""

    def __init__(self, **options):
        super().__init__()
        self.filters, self.options = nn.Linear(6, 4 * 6 * 9), options

    def forward(self, x):
        n, c, h, w = x.shape
        filters = self.filters(x.mean((2, 3))).view(n * 4, c, 3, 3)
        y = F.conv2d(x.reshape(1, n * c, h, w), filters, groups=n, **self.options)
        return y.view(n, 4, *y.shape[2:])


X = images(3, 6, 9, 7)
CASES = {
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.5),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "adaptive, one side": lambda x: F.adaptive_max_pool2d(x, (None, 5)),
    "to one": lambda x: nn.AdaptiveMaxPool2d(1)(x),
    "cdist": lambda x: torch.cdist(x.flatten(2), x.flatten(2)[:, :4]),
    "median": lambda x: x.flatten(2).median(2).values,
    "median, kept": lambda x: torch.median(x, 1, keepdim=True)[0],
    "a mask of attention": lambda x: F.scaled_dot_product_attention(x, x, x, torch.eye(9)),
    "a mask of truths": lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(9, 9, dtype=torch.bool).tril(), scale=0.3),
    "kthvalue": lambda x: x.kthvalue(3, 3)[0],
}


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_the_same(name):
    expected = CASES[name](X)
    with Portable():
        torch.testing.assert_close(CASES[name](X), expected)


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"dilation": 2, "padding": [2, 1], "stride": (1, 2)}]
)
def test_filters_of_each_image_are_products(options):
    module = Own(**options).eval()
    with Portable():
        program = torch.export.export(module, (X,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for number in (2, 3):
        torch.testing.assert_close(program(X[:number]), module(X[:number]))


def test_a_network_of_such_operations_is_exported(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.slope, self.head = Own(padding=1), nn.RReLU(), nn.Linear(4 * 6, 5)
            self.same, self.bias = nn.Conv2d(4, 4, 3, padding="same", dilation=2), nn.Parameter(torch.ones(1, 9, 9))

        def forward(self, x):
            y = self.same(self.slope(self.own(x)))
            bias = self.bias.expand(y.shape[0], -1, -1)[:, None]
            y = y + F.scaled_dot_product_attention(y, y, y, bias).transpose(1, 2).reshape(y.shape)
            y = F.adaptive_max_pool2d(y, (3, 2)).flatten(1)
            return self.head(y) + y.median(1, keepdim=True)[0]

    module = Net().eval()
    for name in ("onnx", "pt2"):
        write_format(name, module, X, tmp_path / f"model.{name}")
        result = agreement(module, load_format(name, tmp_path / f"model.{name}"), X)
        assert result.max_difference <= 1e-5 * result.scale


def test_what_no_file_can_be_written_of_is_refused_with_the_operation(tmp_path):
    class Searched(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.edges = nn.Linear(6, 5), nn.Buffer(torch.linspace(-1, 1, 4))

        def forward(self, x):
            return self.head(torch.searchsorted(self.edges, x.mean((2, 3))).float())

    with pytest.raises(InvalidSetting, match="^net cannot be delivered.*ONNX has no operation for searchsorted"):
        with deliverable("net"):
            write_format("onnx", Searched().eval(), X, tmp_path / "model.onnx")
