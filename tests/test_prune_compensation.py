"""Weights that make up for channels that are gone, in closed form."""

import pytest
import torch
import torch.nn.functional as F
from networks import images, randomize_norms
from torch import Tensor, nn

from compress.prune import compensation
from compress.prune.compensation import Moments, compensated, moments
from compress.prune.dependencies import analyse, remove
from compress.prune.groups import IN, OUT, Cut, Group, Member
from compress.prune.slices import silenced
from nas.training.calibration import batch_statistics

GONE = (4, 5, 6, 7)


class Net(nn.Module):
    """Two groups of eight units: the channels between the convolutions, and the features between the linear layers."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 4, 3, stride=2, padding=(1, 2), dilation=(1, 2), bias=bias)
        self.hidden, self.last = nn.Linear(4 * 4, 8), nn.Linear(8, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.norm(self.first(x))))
        return self.last(torch.tanh(self.hidden(F.adaptive_avg_pool2d(x, 2).flatten(1))))


def network(bias: bool = True) -> tuple[Net, tuple[Group, ...]]:
    torch.manual_seed(0)
    module = randomize_norms(Net(bias)).eval()
    first, hidden = analyse(module, images(1, 3, 8, 8))[0], analyse(module, images(1, 3, 8, 8))[-1]
    assert (first.name, first.width, hidden.name, hidden.width) == ("first", 8, "hidden", 8)
    return module, (first, hidden)


def duplicate(module: Net) -> None:
    """Units 4 to 7 are those from 0 to 3."""
    for layer in (module.first, module.norm, module.hidden):
        state = {name: torch.cat([t[:4], t[:4]]) if t.dim() else t for name, t in layer.state_dict().items()}
        layer.load_state_dict(state)


def inputs_of(module: nn.Module, name: str, batches: list[Tensor]) -> Tensor:
    seen: list[Tensor] = []
    hook = module.get_submodule(name).register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    with batch_statistics(module):
        for x in batches:
            module(x)
    hook.remove()
    return torch.cat(seen)


def columns(module: Net, batches: list[Tensor]) -> Tensor:
    """What the second convolution multiplies with its weights, at all places, (places, 72)."""
    seen = inputs_of(module, "second", batches)
    return F.unfold(seen, 3, dilation=(1, 2), padding=(1, 2), stride=2).transpose(1, 2).flatten(0, 1)


@pytest.fixture(scope="module")
def batches():
    return [images(n, 3, 8, 8, seed=n) for n in (12, 12, 8)]


# -- moments


def test_moments_are_those_of_all_places_where_they_are_few(batches):
    module, groups = network()
    found = moments(module, groups, batches)
    assert found.keys() == {"second", "last"}
    for name, rows in (("second", columns(module, batches)), ("last", inputs_of(module, "last", batches))):
        torch.testing.assert_close(found[name].mean, rows.double().mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[name].covariance.double(), rows.double().T.cov(correction=0), rtol=1e-4, atol=1e-5)


def test_moments_of_some_places_are_nearly_those_of_all(batches, monkeypatch):
    monkeypatch.setattr(compensation, "POSITIONS", 150)
    module, groups = network()
    rows = columns(module, batches).double()
    found, again, other = (moments(module, groups, batches, seed)["second"] for seed in (0, 0, 1))
    assert len(rows) == 32 * 16 and torch.equal(found.mean, again.mean) and not torch.equal(found.mean, other.mean)
    # 128 to 192 places a batch, of which 150 are drawn twice: five standard errors
    assert ((found.mean - rows.mean(0)).abs() < 5 * rows.std(0) / 300**0.5 + 1e-6).all()
    spread = rows.std(0)[:, None] * rows.std(0)
    assert ((found.covariance - rows.T.cov()).abs() / spread).mean() < 2 / 300**0.5


def test_moments_leave_the_module_as_it_is(batches):
    module, groups = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items() if "num_batches" not in name}
    random = torch.get_rng_state()
    moments(module, groups, batches)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
    assert not any(part.training or part._forward_pre_hooks for part in module.modules())
    assert moments(module, groups, []) == {}


def test_layers_that_are_not_solved(monkeypatch):
    units = tuple((u,) for u in range(4))
    readers = {
        "wide": nn.Conv2d(4, 2, 3, padding=1),
        "grouped": nn.Conv2d(4, 4, 1, groups=2),
        "same": nn.Conv2d(4, 2, 3, padding="same"),
        "reflected": nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"),
        "transposed": nn.ConvTranspose2d(4, 2, 1),
    }
    module = nn.ModuleDict({"first": nn.Conv2d(3, 4, 1), **readers})
    module.forward = lambda x: [module[name](module["first"](x)) for name in readers]
    group = Group("first", 4, (Member("first", OUT, units), *(Member(name, IN, units) for name in readers)))
    assert moments(module, [group], [images(2, 3, 4, 4)]).keys() == {"wide"}
    monkeypatch.setattr(compensation, "MOST_INPUTS", 35)
    assert moments(module, [group], [images(2, 3, 4, 4)]) == {}


# -- exact where what is gone can be told from what is left


@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_without_its_duplicates_the_network_computes_the_same(bias, batches, monkeypatch):
    monkeypatch.setattr(compensation, "RIDGE", 1e-9)
    module, groups = network(bias)
    duplicate(module)
    x = images(5, 3, 8, 8, seed=9)
    whole = module(x)
    cuts = [(group, GONE) for group in groups]
    solved = compensated(module, cuts, moments(module, groups, batches))
    assert solved.keys() == {f"{name}.{part}" for name in ("second", "last") for part in ("weight", *["bias"] * bias)}
    assert not solved["second.weight"][:, 4:].any() and not solved["last.weight"][:, 4:].any()
    tolerance = {"rtol": 1e-4, "atol": 1e-4 * float(whole.abs().max())}
    torch.testing.assert_close(torch.func.functional_call(module, solved, (x,)), whole, **tolerance)
    plain = torch.func.functional_call(module, silenced(module, cuts), (x,))
    assert (plain - whole).abs().max() > 0.05 * whole.abs().max()
    module.load_state_dict(solved, strict=False)
    smaller = remove(module, groups, [Cut(group.name, GONE) for group in groups])
    assert smaller.second.in_channels == smaller.last.in_features == 4
    torch.testing.assert_close(smaller(x), whole, **tolerance)


@torch.no_grad()
def test_what_is_a_sum_of_others_and_a_constant_goes_into_weights_and_bias(monkeypatch):
    monkeypatch.setattr(compensation, "RIDGE", 1e-9)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    first, second = module
    first.weight[:3, :, 0, 0] = torch.eye(3) + 0.2
    first.weight[3] = 2 * first.weight[0] - first.weight[2]
    first.bias[3] = 1
    units = tuple((u,) for u in range(4))
    group = Group("0", 4, (Member("0", OUT, units), Member("1", IN, units)))
    x = images(4, 3, 6, 6)
    solved = compensated(module, [(group, [3])], moments(module, [group], [x]))
    torch.testing.assert_close(torch.func.functional_call(module, solved, (x,)), module(x), rtol=1e-4, atol=1e-4)
    weight, gone = second.weight[:, :, 0, 0], second.weight[:, 3, 0, 0]
    expected = weight + gone[:, None] * torch.tensor([2.0, 0, -1, 0])
    torch.testing.assert_close(solved["1.weight"][:, :3, 0, 0], expected[:, :3], rtol=1e-4, atol=1e-4)


# -- least squares everywhere else


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gone", [(0,), (2, 5, 6), tuple(range(7))])
@torch.no_grad()
def test_never_further_from_the_outputs_than_plain_cutting(gone, bias, batches):
    module, groups = network(bias)
    known = moments(module, groups, batches)
    cuts = [(group, gone) for group in groups]
    seen = {"second": columns(module, batches).double(), "last": inputs_of(module, "last", batches).double()}
    for name, rows in seen.items():
        layer = module.get_submodule(name)
        errors = []
        for parameters in (compensated(module, cuts, known), silenced(module, cuts)):
            moved = rows @ (parameters[f"{name}.weight"] - layer.weight).flatten(1).double().T
            # without a bias means are left to the norm that follows
            moved = moved + (parameters.get(f"{name}.bias", layer.bias) - layer.bias if bias else -moved.mean(0))
            errors.append(moved.square().mean(0))
        assert (errors[0] <= errors[1] * (1 + 1e-5)).all() and errors[0].sum() < errors[1].sum()


@torch.no_grad()
def test_no_weights_are_nearer_but_for_the_ridge(batches, monkeypatch):
    monkeypatch.setattr(compensation, "RIDGE", 1e-9)
    module, (first, _) = network()
    found = compensated(module, [(first, GONE)], moments(module, [first], batches))
    rows = columns(module, batches).double()
    left = torch.cat([rows[:, : 4 * 9], torch.ones(len(rows), 1)], 1)
    outputs = rows @ module.second.weight.flatten(1).double().T + module.second.bias
    best = torch.linalg.lstsq(left, outputs).solution
    torch.testing.assert_close(found["second.weight"][:, :4].flatten(1).T.double(), best[:-1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["second.bias"].double(), best[-1], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_reader_of_two_groups_is_solved_once(monkeypatch):
    monkeypatch.setattr(compensation, "RIDGE", 1e-9)
    torch.manual_seed(0)
    layer = nn.ModuleDict({"reader": nn.Linear(6, 3)})
    layer.forward = lambda x: layer["reader"](x)
    one, two = (
        Group(n, 3, (Member("reader", IN, tuple((start + u,) for u in range(3))),)) for n, start in (("one", 0), ("two", 3))
    )
    x = images(40, 6)
    x[:, 1], x[:, 4] = x[:, 0] + 1, x[:, 0] - x[:, 5]
    found = compensated(layer, [(one, [1]), (two, [1])], moments(layer, [one, two], [x]))
    assert not found["reader.weight"][:, [1, 4]].any()
    torch.testing.assert_close(torch.func.functional_call(layer, found, (x,)), layer(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_not_known_is_only_silenced():
    module, groups = network()
    cuts = [(groups[0], (1, 2))]
    known = {"last": Moments(torch.zeros(8), torch.eye(8))}
    found, plain = compensated(module, cuts, known), silenced(module, cuts)
    assert found.keys() == plain.keys() and all(torch.equal(found[name], plain[name]) for name in plain)


@torch.no_grad()
def test_inputs_that_never_vary():
    module, (_, hidden) = network()
    module.hidden.weight.zero_()
    found = compensated(module, [(hidden, GONE)], moments(module, [hidden], [images(4, 3, 8, 8)]))
    x = images(3, 3, 8, 8, seed=2)
    assert all(tensor.isfinite().all() for tensor in found.values())
    torch.testing.assert_close(torch.func.functional_call(module, found, (x,)), module(x))
