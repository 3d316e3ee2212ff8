from dataclasses import replace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F  # noqa: N812
from networks import images, randomize_norms
from scipy.stats import spearmanr
from torch import Tensor

from compress.prune import downstream
from compress.prune.cifar_resnet import CifarResNet
from compress.prune.dependencies import analyse
from compress.prune.evidence import TOGETHER, Evidence, gather, loss
from compress.prune.groups import IN, OUT, Group, Member
from compress.prune.importance import CALIBRATED, IMPORTANCES, score
from compress.prune.slices import rows, silenced, slices
from nas.errors import InvalidSetting
from nas.torch_seeding import generator

UNITS = ((0,), (1,), (2,))
OURS = [name for name in IMPORTANCES if not name.startswith("nni-")]  # those of nni: test_prune_nni.py
GROUP = Group("a", 3, (Member("a", OUT, UNITS), Member("norm", OUT, UNITS), Member("b", IN, UNITS)))


class Tiny(nn.Module):
    """Three channels between two convolutions; the mean of the second one's outputs are the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(2, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.norm(self.a(x)))).mean((2, 3))


@pytest.fixture
def tiny():
    module = Tiny().eval()
    with torch.no_grad():
        module.a.weight.copy_(torch.tensor([[3.0, -4.0], [0.0, 1.0], [6.0, 8.0]])[:, :, None, None])
        module.norm.weight.copy_(torch.tensor([1.0, -0.5, 1.5]))
        module.norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
        module.b.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [-1.0, 2.0, 0.0]])[:, :, None, None])
        module.b.bias.copy_(torch.tensor([0.5, -0.5]))
    return module


@pytest.fixture(scope="module")
def batches():
    def batch(seed: int, n: int) -> tuple[Tensor, Tensor]:
        return images(n, 2, 3, 3, seed=seed), torch.randint(2, (n,), generator=generator(seed, "labels"))

    return batch(0, TOGETHER + 4), batch(1, 4)


def small_resnet() -> tuple[nn.Module, tuple[Group, ...], Evidence]:
    module = randomize_norms(CifarResNet(8)).eval()
    for number, parameter in enumerate(module.parameters()):
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, generator=generator(number))
    x, y = images(12, 3, 16, 16), torch.randint(10, (12,), generator=generator(0, "labels"))
    groups = analyse(module, x[:1])
    module, x = module.double(), x.double()
    return module, groups, replace(gather(module, [(x, y)], seed=0), shape=(3, 16, 16))


def by_mean(values: list[float]) -> Tensor:
    found = torch.tensor(values)
    return found / found.mean()


# -- values that can be worked out


def test_magnitudes_are_means_over_layers(tiny):
    expected = (by_mean([7.0, 1.0, 14.0]) + by_mean([1.0, 0.5, 1.5]) + by_mean([2.0, 2.0, 2.0])) / 3
    torch.testing.assert_close(score("l1", tiny, GROUP, Evidence()), expected)
    expected = (by_mean([5.0, 1.0, 10.0]) + by_mean([1.0, 0.5, 1.5]) + by_mean([2**0.5, 2.0, 2.0])) / 3
    torch.testing.assert_close(score("l2", tiny, GROUP, Evidence()), expected)


def test_lamp_divides_by_what_is_not_smaller(tiny):
    squares = score("l2", tiny, GROUP, Evidence()).square()
    a, b, c = squares.tolist()
    assert c > a > b
    torch.testing.assert_close(score("lamp", tiny, GROUP, Evidence()), torch.tensor([a / (a + c), b / (a + b + c), 1.0]))


def test_bn_scale_is_the_absolute_scale(tiny):
    torch.testing.assert_close(score("bn-scale", tiny, GROUP, Evidence()), torch.tensor([1.0, 0.5, 1.5]))


def test_fpgm_is_the_distance_to_all_others(tiny):
    # filters (3, -4), (0, 1), (6, 8)
    ab, ac, bc = 34**0.5, 153**0.5, 85**0.5
    torch.testing.assert_close(score("fpgm", tiny, GROUP, Evidence()), by_mean([ab + ac, ab + bc, ac + bc]))


def test_activation_is_the_variance_that_readers_pass_on(tiny, batches):
    seen = torch.relu(tiny.norm(tiny.a(torch.cat([x for x, _ in batches])))).detach()
    squares = tiny.b.weight.detach().square().sum((0, 2, 3))
    expected = seen.var((0, 2, 3), correction=0) * squares
    torch.testing.assert_close(score("activation", tiny, GROUP, Evidence(batches)), expected / expected.mean())
    with torch.no_grad():
        tiny.norm.bias[2] += 100  # on average a unit may be as large as it likes
        moved = torch.relu(tiny.norm(tiny.a(torch.cat([x for x, _ in batches]))))[:, 2].var(correction=0) * squares[2]
        expected[2] = moved
    torch.testing.assert_close(score("activation", tiny, GROUP, Evidence(batches)), expected / expected.mean())


class Halves(Tiny):
    """The reader is run on both halves of an image, as attention is on windows, one after the other or at once."""

    def __init__(self, at_once: bool) -> None:
        super().__init__()
        self.at_once = at_once

    def forward(self, x: Tensor) -> Tensor:
        halves = torch.relu(self.norm(self.a(x)))[..., :2].split(1, dim=3)
        outputs = self.b(torch.cat(halves)).split(len(x)) if self.at_once else map(self.b, halves)
        return sum(outputs).mean((2, 3))


@pytest.mark.parametrize("at_once", [True, False])
def test_activation_counts_all_that_a_reader_sees(at_once, tiny, batches):
    halves = Halves(at_once).eval()
    halves.load_state_dict(tiny.state_dict())
    cropped = tuple((x[..., :2], y) for x, y in batches)
    expected = score("activation", tiny, GROUP, Evidence(cropped))
    torch.testing.assert_close(score("activation", halves, GROUP, Evidence(batches)), expected)


def test_activation_of_several_readers_is_their_mean(tiny, batches):
    twice = replace(GROUP, members=(*GROUP.members, Member("c", IN, UNITS)))
    tiny.c = nn.Conv2d(3, 1, 1)
    tiny.b.register_forward_hook(lambda layer, inputs, output: output + 0 * tiny.c(inputs[0]).mean())
    alone = score("activation", tiny, GROUP, Evidence(batches))
    other = score("activation", tiny, replace(twice, members=twice.members[3:]), Evidence(batches))
    torch.testing.assert_close(score("activation", tiny, twice, Evidence(batches)), (alone + other) / 2)
    tiny.c.weight.data *= 100
    torch.testing.assert_close(score("activation", tiny, twice, Evidence(batches)), (alone + other) / 2)


def test_random_is_seeded_by_group(tiny):
    before = torch.get_rng_state()
    one = score("random", tiny, GROUP, Evidence(seed=1))
    assert torch.equal(one, score("random", tiny, GROUP, Evidence(seed=1)))
    assert not torch.equal(one, score("random", tiny, GROUP, Evidence(seed=2)))
    assert not torch.equal(one, score("random", tiny, replace(GROUP, name="b"), Evidence(seed=1)))
    assert torch.equal(before, torch.get_rng_state())


# -- gradients


def test_evidence_holds_the_gradients_of_the_mean_loss(tiny, batches):
    evidence = gather(tiny, batches, seed=0)
    assert all(p.grad is None for p in tiny.parameters())
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    F.cross_entropy(tiny(x), y).backward()
    for name, parameter in tiny.named_parameters():
        torch.testing.assert_close(evidence.gradients[name], parameter.grad)
    pieces = [(x[:8], y[:8]), (x[8:12], y[8:12]), (x[12:], y[12:])]
    squares = torch.zeros(3)
    for images_, labels in pieces:
        (slope,) = torch.autograd.grad(F.cross_entropy(tiny(images_), labels), [tiny.norm.weight])
        squares += slope.square() * len(labels) / len(y)
    torch.testing.assert_close(evidence.curvatures["norm.weight"], squares)


def test_taylor_and_hessian_sum_over_all_parameters_of_a_unit(tiny, batches):
    evidence = gather(tiny, batches, seed=0)
    parameters = dict(tiny.named_parameters())
    owned = {"a.weight": 0, "norm.weight": 0, "norm.bias": 0, "b.weight": 1}
    for name, factors in (("taylor", {n: g**2 for n, g in evidence.gradients.items()}), ("hessian", evidence.curvatures)):
        expected = [
            sum(float((factors[n] * p.detach() ** 2).select(dim, u).sum()) for n, dim in owned.items() for p in [parameters[n]])
            for u in range(3)
        ]
        torch.testing.assert_close(score(name, tiny, GROUP, evidence), torch.tensor(expected) / (2 if name == "hessian" else 1))


def test_taylor_ranks_units_as_small_changes_of_their_weights_do():
    module, groups, evidence = small_resnet()
    group = next(g for g in groups if g.name == "layer1.0.conv1")
    changes = torch.zeros(group.width)
    whole = loss(module, {}, evidence.batches)
    rng = generator(0, "noise")
    for unit in range(group.width):
        for _ in range(16):
            moved = loss(module, noisy(module, group, unit, rng), evidence.batches)
            changes[unit] += (moved - whole) ** 2
    rank = spearmanr(changes.numpy(), score("taylor", module, group, evidence).numpy()).statistic
    assert rank > 0.9


def noisy(module: nn.Module, group: Group, unit: int, rng: torch.Generator) -> dict[str, Tensor]:
    """The parameters of one unit, each off by about a thousandth of itself."""
    found: dict[str, Tensor] = {}
    for member in group.members:
        for part in slices(module, member):
            weight = found.setdefault(part.name, module.get_parameter(part.name).detach())
            index = torch.tensor(member.units[unit])
            own = weight.index_select(part.dim, index)
            noise = torch.randn(own.shape, generator=rng, dtype=torch.double)
            found[part.name] = weight.index_copy(part.dim, index, own * (1 + 1e-3 * noise))
    return found


# -- what follows


def without(module: nn.Module, unit: int) -> dict[str, Tensor]:
    weight = module.b.weight.detach().clone()
    weight[:, unit] = 0
    return {"b.weight": weight}


def test_ablation_is_the_rise_of_the_loss(tiny, batches):
    whole = loss(tiny, {}, batches)
    rises = torch.tensor([loss(tiny, without(tiny, unit), batches) - whole for unit in range(3)])
    scores = score("ablation", tiny, GROUP, Evidence(batches))
    torch.testing.assert_close(scores, rises, rtol=0, atol=2 * downstream.TIE * float(rises.abs().max()))


def test_optin_is_how_far_features_move(tiny, batches):
    moves = torch.zeros(3)
    for x, _ in batches:
        seen = tiny.norm(tiny.a(x)).relu().detach()
        whole = tiny.b(seen)
        for unit in range(3):
            moved = F.conv2d(seen, without(tiny, unit)["b.weight"], tiny.b.bias)
            moves[unit] += ((moved - whole) ** 2).sum().item() / (whole**2).sum().item()
    scores = score("optin", tiny, GROUP, Evidence(batches))
    torch.testing.assert_close(scores, moves, rtol=0, atol=2 * downstream.TIE * float(moves.max()))


@pytest.mark.parametrize("name", ["ablation", "optin"])
def test_wide_groups_are_measured_in_chunks(name):
    module, groups, evidence = small_resnet()
    group = next(g for g in groups if g.name == "layer3.0.conv1")
    assert group.width > 2 * downstream.CHUNKS
    runs = []
    handle = module.conv1.register_forward_hook(lambda *_: runs.append(1))
    scores = score(name, module, group, evidence)
    handle.remove()
    assert len(runs) <= downstream.CHUNKS + 2
    magnitudes = score("l2", module, group, evidence)
    weakest = magnitudes.argsort()[: group.width // downstream.CHUNKS]
    if name == "ablation":
        rise = loss(module, silenced(module, [(group, weakest.tolist())]), evidence.batches) - loss(
            module, {}, evidence.batches
        )
        expected = torch.full((len(weakest),), rise / len(weakest))
        torch.testing.assert_close(scores[weakest], expected, rtol=0, atol=2 * downstream.TIE * float(scores.abs().max()))
    assert torch.equal(scores[weakest].argsort(), magnitudes[weakest].argsort())


def test_optin_looks_at_features_after_the_unit_only():
    module, groups, evidence = small_resnet()
    x = evidence.batches[0][0]
    last = next(g for g in groups if g.name == "layer3.0.conv1")
    assert downstream._layers_after(module, last, x) == ["layer3.0.conv2", "linear"]
    first = downstream._layers_after(module, groups[0], x)
    assert first[0] == "layer1.0.conv1" and first[-1] == "linear" and len(first) <= downstream.FEATURES


# -- all of them


@pytest.mark.parametrize("name", OURS)
def test_scores_are_finite_and_nothing_is_left_behind(name):
    module, groups, evidence = small_resnet()
    module.train()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    for group in groups:
        scores = score(name, module, group, evidence)
        assert scores.shape == (group.width,) and scores.isfinite().all() and scores.unique().numel() > 1
        assert not scores.requires_grad and torch.equal(scores, score(name, module, group, evidence))
    assert module.training and all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_dead_units_come_last(tiny, batches):
    with torch.no_grad():
        for parameter, dim in ((tiny.a.weight, 0), (tiny.norm.weight, 0), (tiny.norm.bias, 0), (tiny.b.weight, 1)):
            parameter.select(dim, 1).zero_()
    evidence = replace(gather(tiny, batches, seed=0), shape=(2, 3, 3))
    for name in set(OURS) - {"random", "fpgm", "ablation"}:
        scores = score(name, tiny, GROUP, evidence)
        assert scores.argmin() == 1 and scores[1] == 0, name


def test_rows_gather_what_a_unit_owns():
    weight = torch.arange(24.0).reshape(2, 4, 3)
    assert rows(weight, 1, ((0, 2), (3, 1))).tolist()[0] == weight[:, [0, 2]].transpose(0, 1).flatten().tolist()


# -- bad input


def test_bad_input(tiny, batches):
    with pytest.raises(InvalidSetting, match="importance 'l3' is not known; choose one of l1, l2, "):
        score("l3", tiny, GROUP, Evidence())
    for name in CALIBRATED:
        with pytest.raises(InvalidSetting, match=f"importance '{name}' needs calibration data"):
            score(name, tiny, GROUP, Evidence())
    bare = replace(GROUP, members=(GROUP.members[0], GROUP.members[2]))
    with pytest.raises(InvalidSetting, match="'bn-scale' needs norms with a scale, and group 'a' has none"):
        score("bn-scale", tiny, bare, Evidence())
    nn.init.constant_(tiny.a.weight, float("nan"))
    with pytest.raises(InvalidSetting, match="importance 'l2' is not finite on group 'a'"):
        score("l2", tiny, GROUP, Evidence())
