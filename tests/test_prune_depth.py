import pytest
import torch
import torchvision.models as tv
from networks import images, randomize_norms
from torch import Tensor, nn

from compress.prune.cifar_resnet import CifarResNet
from compress.prune.depth import residual_blocks, without
from nas.errors import InvalidSetting
from nas.torch_seeding import generator
from nas.training.calibration import recalibrate


class Sublayer(nn.Module):
    """Pre-norm: what is added is a function of the normalized sequence."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.norm, self.function = nn.LayerNorm(12), function

    def forward(self, x: Tensor) -> Tensor:
        return x + self.function(self.norm(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


class Transformer(nn.Module):
    """Attention and perceptron are parts by themselves, so that each can go alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.layers = nn.Sequential()
        for _ in range(2):
            perceptron = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
            self.layers.append(nn.Sequential(Sublayer(Attention()), Sublayer(perceptron)))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


BASIC = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
# a network, the side of its images, its blocks, and where the branches of a block end
NETWORKS = {
    "cifar-resnet20": (
        lambda: CifarResNet(20),
        16,
        [name for name in BASIC if name not in ("layer2.0", "layer3.0")],
        ["bn2"],
    ),
    "mobilenet_v2": (
        lambda: tv.mobilenet_v2(num_classes=10, width_mult=0.5),
        32,
        [f"features.{i}" for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)],
        ["conv.3"],
    ),
    "vit": (
        lambda: tv.VisionTransformer(16, 4, 2, 3, 12, 20, num_classes=5),
        16,
        [f"encoder.layers.encoder_layer_{i}" for i in (0, 1)],
        ["self_attention.out_proj", "mlp.3"],
    ),
    "transformer": (
        Transformer,
        16,
        [f"layers.{i}.{j}" for i in (0, 1) for j in (0, 1)],
        ["function.inner.out_proj", "function.2"],
    ),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    make, side, blocks, ends = NETWORKS[request.param]
    torch.manual_seed(0)
    module = randomize_norms(make()).eval()
    for number, (name, parameter) in enumerate(module.named_parameters()):
        if isinstance(module.get_submodule(name.rpartition(".")[0]), nn.LayerNorm) or not parameter.any():
            nn.init.normal_(parameter, generator=generator(number))
    x = images(8, 3, side, side)
    recalibrate(module, [x])  # so that signals keep their size in deep networks
    return module, x[:2], blocks, ends


def with_zeroed_branches(module: nn.Module, blocks: list[str], ends: list[str], x: Tensor) -> Tensor:
    zeroed = {f"{block}.{end}." for block in blocks for end in ends}
    parameters = {n: torch.zeros_like(p) for n, p in module.named_parameters() if n.startswith(tuple(zeroed))}
    assert len(parameters) >= 2 * len(blocks)
    return torch.func.functional_call(module, parameters, (x,))


def test_all_blocks_that_add_to_their_input_are_found(network):
    module, x, blocks, _ = network
    assert residual_blocks(module, x) == tuple(blocks)


@torch.no_grad()
def test_without_blocks_is_with_branches_that_add_zero(network):
    module, x, blocks, ends = network
    whole = module(x)
    for gone in (blocks[:1], blocks[1:2], blocks[-2:], blocks):
        expected = with_zeroed_branches(module, gone, ends, x)
        assert (expected - whole).abs().max() > 1e-2 * whole.abs().max()
        torch.testing.assert_close(without(module, gone)(x), expected, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))


def test_blocks_that_are_left_are_found_again(network):
    module, x, blocks, _ = network
    assert residual_blocks(without(module, blocks[:1]), x) == tuple(blocks[1:])
    assert residual_blocks(without(module, blocks), x) == ()


def test_the_module_is_left_as_it_is(network):
    module, x, blocks, _ = network
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    residual_blocks(module.train(), x)
    without(module, blocks)
    assert module.training and module.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not any(part._forward_hooks for part in module.modules())
    module.eval()


# -- what is no block


class Twice(nn.Module):
    """The block is run on two inputs, and the norm adds nothing, whatever its shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.norm = nn.Linear(4, 12), Sublayer(nn.Linear(12, 12)), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.block(self.block(self.first(x))))


def test_what_is_run_twice_stays():
    assert residual_blocks(Twice(), images(2, 4)) == ()


class Outer(nn.Module):
    """Adds to its input what a residual block makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = Sublayer(nn.Linear(12, 12)), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.block(x))


def test_of_nested_blocks_the_inner_one_goes():
    assert residual_blocks(nn.Sequential(nn.Linear(4, 12), Outer(), nn.Linear(12, 3)), images(2, 4)) == ("1.block",)


# -- bad input


def test_bad_input():
    module = CifarResNet(8)
    with pytest.raises(InvalidSetting, match="there is no block 'layer1.1' to remove; parts are bn1, conv1, layer1, "):
        without(module, ["layer1.0", "layer1.1"])
    with pytest.raises(InvalidSetting, match=r"CifarResNet cannot be run on \(2, 1, 8, 8\): "):
        residual_blocks(module, images(2, 1, 8, 8))
