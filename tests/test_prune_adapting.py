"""Modules as users have them: what they compute in evaluation stays, whatever is taken away around it."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from compress.prune.adapting import Chosen, Logits, chosen_logits, materialized, plain, unwrapped
from compress.prune.attention import prepare

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Named = namedtuple("Named", "features scores")


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class Ones(nn.Module):
    def forward(self, weight):
        return weight * 2 + 1


def body():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )


def normed(kind):
    module = body()
    kind(module[0])
    kind(module[5])
    return module


def masked(part):
    prune.l1_unstructured(part, "weight", 0.3)
    prune.random_unstructured(part, "bias", 0.5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (weight_norm, "weight norm"),
        (spectral_norm, "spectral norm"),
        (masked, "masks of torch.nn.utils.prune"),
        (parametrizations.weight_norm, "parametrizations"),
        (parametrizations.orthogonal, "parametrizations"),
        (lambda part: register_parametrization(part, "weight", Ones()), "parametrizations"),
    ],
)
def test_computed_weights_become_weights(kind, told):
    module = normed(kind).train()
    module[1].eval()
    expected = module.eval()(X)
    module.train()
    module[1].eval()
    assert plain(module) == [f"{told} folded into the weights"]
    assert module.training and not module[1].training
    assert {name for name, _ in module[0].named_parameters()} == {"weight", "bias"} and not module[0]._forward_pre_hooks
    assert not any(is_parametrized(part) for part in module.modules())
    assert torch.allclose(prepare(module).eval()(X), expected, atol=1e-6)
    assert plain(module) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_numbers_are_taken_in_fp32(dtype):
    module = body().to(dtype).eval()
    stored = {name: t.clone() for name, t in module.state_dict().items()}
    assert "are taken in fp32" in plain(module)[0]
    assert all(torch.equal(t, stored[name].to(t.dtype)) for name, t in module.state_dict().items())
    assert module(X).dtype == torch.float32


def test_wrappers_are_taken_off():
    inner = body()
    assert unwrapped(nn.DataParallel(inner)) is inner
    assert unwrapped(OptimizedModule(nn.DataParallel(inner), lambda *_: None)) is inner
    assert unwrapped(inner) is inner


def test_lazy_layers_get_their_shapes():
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(5))
    assert materialized(module, X)[3].weight.shape == (5, 4 * 6 * 6) and module.training
    assert torch.equal(module[1].running_mean, torch.zeros(4))


# -- outputs


class Several(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.body, self.head, self.other = body()[:5], nn.Linear(6, 4), nn.Linear(6, 7)
        self.give = give

    def forward(self, x):
        f = self.body(x)
        return self.give(f, self.head(f), self.other(f), x)


@pytest.mark.parametrize(
    ("give", "classes", "key"),
    [
        (lambda f, y, z, x: (y, f), None, 0),
        (lambda f, y, z, x: (f, y), None, 1),
        (lambda f, y, z, x: [x, f, y], None, 2),
        (lambda f, y, z, x: {"logits": y, "aux": z}, None, "logits"),
        (lambda f, y, z, x: {"out": y, "map": x}, None, "out"),
        (lambda f, y, z, x: Named(f, y), None, "scores"),
        (lambda f, y, z, x: Output(y, f), None, "logits"),
        (lambda f, y, z, x: (z, y), 4, 1),
        (lambda f, y, z, x: (y, z), 7, 1),
        (lambda f, y, z, x: (y, None, {"f": f}), None, 0),
    ],
)
def test_the_logits_are_found_among_several_outputs(give, classes, key):
    module = Several(give).eval()
    chosen = chosen_logits(module, X, classes)
    assert chosen.key == key
    f = module.body(X)
    assert torch.equal(Logits(module, chosen.key)(X), module.other(f) if classes == 7 else module.head(f))


def test_what_cannot_be_told_is_not_guessed():
    module = Several(lambda f, y, z, x: (y, z)).eval()
    assert chosen_logits(module, X, None) == Chosen(None, "0: (2, 4), 1: (2, 7)")
    assert chosen_logits(module, X, 5).key is None
    assert chosen_logits(Several(lambda f, y, z, x: {"map": x, "none": None}), X, None).key is None
