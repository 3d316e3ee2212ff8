"""What other people's networks do: operations, shapes that are acted on, tensors that they hold."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import nn
from torch.fx.immutable_collections import immutable_list
from traced import Graph, assert_counts_agree, traced

from nas.cost.counting import count
from nas.cost.recount import recount, state_bytes
from nas.cost.trace import Untraceable, trace


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: torch.einsum("b c h w, b d h w -> b c d", m.relu(y := m.conv(x)), m.second(y)),
        lambda m, x: F.group_norm(m.conv(x), 2).roll(1, 2),
        lambda m, x: torch.addcmul(y := m.conv(x), y, torch.ones(8, 8)).sum((2, 3)),
        lambda m, x: F.conv2d(m.conv(x), m.second.weight, m.second.bias, stride=m.second.stride, padding=1),
        lambda m, x: F.conv2d(weight=m.second.weight, input=m.conv(x), padding=1),
        lambda m, x: F.scaled_dot_product_attention(value=(y := m.conv(x)), query=m.relu(y), key=m.second(y)),
        lambda m, x: F.normalize(m.conv(x).flatten(2), dim=-1).transpose(1, 2).repeat(1, 2, 1),
        lambda m, x: m.conv(x) + torch.arange(x.shape[-1], device=x.device).float().sin(),
        lambda m, x: (y := m.conv(x)).flatten(2).mT @ m.second(y).flatten(2),
    ],
)
def test_operations_of_other_peoples_networks(run):
    assert_counts_agree(Graph(run), torch.zeros(1, 3, 8, 8), ("macs", "params"))


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bchw,bcwd->bhd", [(1, 4, 8, 8), (1, 1, 8, 5)], 8 * 8 * 5),  # c of the second is broadcast: torch sums over it first
        ("bchw,bcwd->bchd", [(1, 4, 8, 8), (1, 1, 8, 5)], 4 * 8 * 8 * 5),
        ("...ij,...jk->...ik", [(1, 3, 4, 5), (3, 5, 6)], 3 * 4 * 5 * 6),
    ],
)
def test_products_by_letters(equation, shapes, macs):
    second = torch.zeros(shapes[1])
    module = Graph(lambda m, x: torch.einsum(equation, x, second))
    assert recount(module, torch.zeros(shapes[0])).value("macs") == macs
    assert count(traced(module, *shapes[0])).value("macs") == macs


def test_a_product_of_three_costs_what_its_products_of_two_do():
    module = Graph(lambda m, x: torch.einsum("bchw,wd,de->bche", x, torch.zeros(8, 5), torch.zeros(5, 6)))
    assert recount(module, torch.zeros(1, 3, 8, 8)).value("macs") == 3 * 8 * (8 * 5 + 5 * 6)
    assert count(traced(module, 1, 3, 8, 8)).value("macs") == 3 * 8 * (8 * 5 + 5 * 6)


@pytest.mark.parametrize(
    "run",
    [
        lambda y: y.max(1).values,
        lambda y: F.relu(torch.max(y, 1, keepdim=True).values),
        lambda y: y.flatten(2).topk(2).indices,
        lambda y: y.median(-1).values[0].T,
    ],
)
def test_parts_of_what_an_operation_gives(run):
    assert count(traced(Graph(lambda m, x: run(m.conv(x))), 1, 3, 8, 8)).value("macs") == 27 * 4 * 64


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x[: len(x.nonzero())],
        lambda x: x[x > 0].shape[0] * x,
        lambda x: x[x.to(torch.bool)].shape[0] * x,
        lambda x: x.unique().numel() * x,
        lambda x: x.repeat_interleave(x.amax((0, 1, 2)).to(torch.long) + 1, 3),
        lambda x: torch.where(condition=x > 0)[0],
        lambda x: x.sum().item() * x,
        lambda x: x.no_such_thing,
        lambda x: x if x.max() > 0 else -x,
    ],
)
def test_what_depends_on_values_is_refused(run):
    with pytest.raises(Untraceable, match="cannot be traced"):
        traced(Graph(lambda m, x: run(m.conv(x))), 1, 3, 8, 8)


class Collected(nn.Module):
    """Arguments of any number."""

    def __init__(self):
        super().__init__()
        self.conv, self.kept, self.cache = nn.Conv2d(3, 4, 3, padding=1), [], {}

    def forward(self, *inputs, **options):
        (x,) = inputs
        y = self.cache.setdefault("y", self.conv(x))
        self.kept.append(y)
        return y if options.get("skip") is None and not options.get("flag", False) else x


class Frozen(dict):
    """Options of a network that refuse to be changed."""

    def clear(self):
        raise AttributeError("frozen")

    update = clear


def test_arguments_of_any_number_and_what_a_forward_keeps():
    module = Collected()
    module.options, module.more = Frozen(width=4), immutable_list([1, 2])
    module.cache["other"] = 1
    assert count(traced(module, 1, 3, 8, 8)).value("macs") == 27 * 4 * 64
    assert module.kept == [] and module.cache == {"other": 1} and module.training
    assert module.options == {"width": 4} and module.more == [1, 2]


def test_what_runs_on_no_batch_is_named_or_counted():
    module = Graph(lambda m, x: m.pool(m.conv(x).flatten(2)[0]))
    module.pool = nn.AvgPool1d(2)
    assert count(traced(module, 1, 3, 8, 8)).value("macs") == 27 * 4 * 64
    module = nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.AvgPool1d(2))
    assert_counts_agree(module, torch.zeros(1, 3, 8), ("macs", "params"))


def test_a_forward_that_was_put_in_place_of_another():
    network = torchvision.models.resnet18(num_classes=5)
    expected = count(trace(network, torch.zeros(1, 3, 32, 32))).values()
    block = network.layer1[0]

    def forward(x):
        return block.relu(block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x))))) + x)

    block.forward = forward
    assert count(trace(network, torch.zeros(1, 3, 32, 32))).values() == expected


def test_padding_by_a_word_is_counted_twice_alike():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.ReLU())
    assert_counts_agree(module, torch.zeros(1, 3, 8, 8))
    assert_counts_agree(Graph(lambda m, x: m.conv(x[0])), torch.zeros(1, 3, 8, 8))
    plan = traced(Graph(lambda m, x: F.conv2d(x[0], m.conv.weight)), 1, 3, 8, 8)
    assert count(plan).value("macs") == 27 * 4 * 36 and set(plan.layers[-1].inputs) == {"input", "conv.weight"}
    assert "conv.weight" in {layer.name for layer in plan.layers}


@pytest.mark.parametrize("block", ["SwinTransformerBlock", "SwinTransformerBlockV2"])
def test_attention_in_windows(block):
    parts = torchvision.models.swin_transformer
    merging = parts.PatchMergingV2 if block.endswith("V2") else parts.PatchMerging
    network = parts.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 4], [3, 3], num_classes=5, block=getattr(parts, block), downsample_layer=merging
    )
    assert_counts_agree(network, torch.zeros(1, 3, 32, 32), ("macs", "params"))  # 8 x 8 and 4 x 4: windows are padded


class ShapeDependent(nn.Module):
    """What stops the plain tracer: shapes that are acted on, parts that are run through, arguments that are left out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("grid", torch.arange(64).view(8, 8))

    def forward(self, x, mask=None, scale=2.0, *rest, **more):
        n, _, height, width = x.shape
        if height % 4 or len(x) != n or x.dim() != 4 or rest or more:
            raise ValueError(f"sides of {height} pixels")
        y = self.conv(x) * scale
        y = torch.cat([part + 1 for part in y.unbind(1)], 1) if mask is None else y[mask]
        for _ in range(width // 8):
            y = y + self.grid.repeat(1, y.shape[1] // y.shape[1])[:, :8].sum()
        self.kept = y  # for later
        return y.view(n, -1, y.size(1))


def test_control_flow_that_depends_on_shapes_is_followed():
    module = ShapeDependent()
    for side in (8, 16):
        assert count(traced(module, 1, 3, side, side)).value("macs") == 27 * 4 * side * side
    assert vars(module).keys() == vars(ShapeDependent()).keys() and module.training  # it is left as it was
    with pytest.raises(Untraceable, match="sides of 6 pixels"):
        traced(module, 1, 3, 6, 6)
    assert_counts_agree(module, torch.zeros(1, 3, 8, 8), ("macs", "params"))


def test_what_the_network_holds_is_no_activation_and_is_stored():
    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.register_buffer("mean", torch.zeros(3, 1, 1))
            self.register_buffer("index", torch.arange(8), persistent=False)

        def forward(self, x):
            return self.conv(x - self.mean + self.index) + torch.ones(8)

    module = Held()
    plan = traced(module, 1, 3, 8, 8)
    assert [x.op for x in plan.layers] == ["buffer", "add", "constant", "add", "conv", "constant", "add"]
    without = traced(Graph(lambda m, x: m.conv(x)), 1, 3, 8, 8)
    assert count(plan).value("size_bytes") == pytest.approx(state_bytes(module), abs=16)
    assert count(plan).value("params") == 16 and count(without).uncounted == ()


def test_buffers_that_only_tensors_are_made_of_are_stored_and_may_choose():
    class Chosen(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.register_buffer("order", torch.arange(800).view(2, 400))
            self.register_buffer("chosen", torch.tensor([True, False, True, True]))
            self.register_buffer("unread", torch.zeros(700))

        def forward(self, x):
            y = self.norm(self.conv(x))
            return y[:, self.chosen] + self.order.view(-1)[:8]

    module = Chosen()
    plan = traced(module, 1, 3, 8, 8)
    assert count(plan).uncounted == () and plan.layers[-1].out_channels == 3
    assert count(plan).value("size_bytes") == pytest.approx(state_bytes(module), abs=100)  # of longer names
