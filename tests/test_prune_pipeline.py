"""The whole pass on small networks: budgets, histories that replay, steps, blocks."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from networks import images, randomize_norms
from prune_toy import in_blocks
from torch import Tensor, nn

from compress.prune.cifar_resnet import CifarResNet
from compress.prune.dependencies import analyse
from compress.prune.depth import without
from compress.prune.distortion import divergences
from compress.prune.groups import Cut
from compress.prune.history import History, replay
from compress.prune.importance import CALIBRATED
from compress.prune.passes import pruned
from compress.prune.pipeline import Calibration, Pruned, Recipe, Subject, analysed, example_of, lowest, ranked
from compress.prune.saved import load_pruned, save_pruned
from compress.prune.slices import silenced
from nas.budget import Budget, check
from nas.cost.counting import count
from nas.cost.trace import trace
from nas.errors import InfeasibleBudget, InvalidBudget, InvalidSetting
from nas.torch_seeding import generator
from nas.training.calibration import recalibrate

EXAMPLE = example_of((3, 8, 8))


def resnet(depth: int) -> nn.Module:
    torch.manual_seed(0)
    module = randomize_norms(CifarResNet(depth))
    recalibrate(module, [images(16, 3, 8, 8)])
    return module


@pytest.fixture(scope="module")
def original():
    return resnet(8)


@pytest.fixture(scope="module")
def subject(original):
    return analysed(original, EXAMPLE)


@pytest.fixture(scope="module")
def data():
    x, y = images(24, 3, 8, 8, seed=1), torch.randint(10, (24,), generator=generator(1, "labels"))
    return Calibration(((x[:16], y[:16]), (x[16:], y[16:])), (x[:16],), (x[:12], x[12:]))


def resolved(subject: Subject, *texts: str) -> list[Budget]:
    return [Budget.parse(text).resolve(subject.cost) for text in texts]


def used(found: Pruned, budgets: list[Budget]) -> list[float]:
    """What part of each limit the traced network uses."""
    cost = count(trace(found.module, EXAMPLE[:1]))
    return [cost.metrics[budget.metric].value / budget.limit for budget in budgets]


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def check_that_all_agrees(found: Pruned, original: nn.Module) -> None:
    """What is told of the network is true of it, and its history rebuilds it."""
    assert trace(found.module, EXAMPLE[:1]) == found.subject.widths.plan
    assert found.subject.groups == analyse(found.module, EXAMPLE) == found.subject.widths.groups
    assert {group.name: group.width for group in found.subject.groups} == found.keep
    again = replay(original, History.from_json(found.history.to_json()), EXAMPLE).eval()
    again.load_state_dict(found.module.state_dict())
    x = images(4, 3, 8, 8, seed=3)
    assert torch.equal(again(x), found.module(x)) and not any(part.training for part in found.module.modules())


# -- one step


@pytest.mark.parametrize(
    ("recipe", "with_data"),
    [
        (Recipe(), True),
        (Recipe(), False),
        (Recipe("taylor", "uniform"), True),
        (Recipe("activation", "sensitivity"), True),
        (Recipe("bn-scale", "global"), False),
        (Recipe("random", "isomorphic", compensate=False), True),
    ],
)
def test_budgets_are_kept_and_hit(recipe, with_data, original, subject, data):
    budgets = resolved(subject, "40%", "50%params")
    found = pruned(subject, budgets, recipe, data if with_data else Calibration())
    assert 0.97 < max(used(found, budgets)) <= 1 and not check(budgets, found.subject.cost)
    check_that_all_agrees(found, original)
    assert found.history.blocks == () and found.history.widths_before(found.keep) == subject.widths.full


def test_neither_the_original_nor_the_subject_is_changed(original, data):
    before, subject = {n: t.clone() for n, t in original.state_dict().items()}, analysed(original.train(), EXAMPLE)
    pruned(subject, resolved(subject, "40%"), Recipe(), data)
    assert original.training and all(torch.equal(tensor, before[n]) for n, tensor in original.state_dict().items())
    assert all(torch.equal(t, before[n]) for n, t in subject.module.state_dict().items() if "num_batches" not in n)
    original.eval()


def test_the_least_important_units_go(subject):
    found = pruned(subject, resolved(subject, "40%"), Recipe("l2"))
    scores = ranked(subject, Recipe("l2"), Calibration()).scores
    assert found.history.cuts == lowest(subject.groups, scores, found.keep)
    for cut in found.history.cuts:
        left = [value for unit, value in enumerate(scores[cut.group]) if unit not in cut.units]
        assert max(scores[cut.group][list(cut.units)]) <= min(left)


@torch.no_grad()
def test_without_data_weights_and_statistics_are_those_of_the_original(subject):
    found = pruned(subject, resolved(subject, "40%"), Recipe())
    groups = {group.name: group for group in subject.groups}
    parameters = silenced(subject.module, [(groups[cut.group], cut.units) for cut in found.history.cuts])
    x = images(4, 3, 8, 8, seed=3)
    expected = torch.func.functional_call(subject.module, parameters, (x,))
    torch.testing.assert_close(found.module(x), expected)
    assert (expected - subject.module(x)).abs().max() > 1e-2


@torch.no_grad()
def test_norms_are_those_of_the_cut_network(subject, data):
    found = pruned(subject, resolved(subject, "40%"), Recipe(), data)
    again = replay(subject.module, found.history, EXAMPLE)
    again.load_state_dict(found.module.state_dict())
    nn.init.constant_(again.bn1.running_mean, 5.0)
    recalibrate(again, data.norms)
    assert same_weights(again, found.module)


def test_compensation_brings_outputs_nearer(subject, data):
    budgets = resolved(subject, "40%")
    networks = {
        str(compensate): pruned(subject, budgets, Recipe("l2", "uniform", compensate=compensate), data).module
        for compensate in (True, False)
    }
    found = divergences(subject.module, networks, data.norms)
    assert 0 < found["True"] < 0.8 * found["False"]


def test_a_budget_on_time(original):
    subject = analysed(original, EXAMPLE, in_blocks)
    budgets = resolved(subject, "60%latency", "80%")
    found = pruned(subject, budgets, Recipe("l2", "uniform"))
    assert not check(budgets, found.subject.cost) and found.subject.widths.latency is in_blocks
    check_that_all_agrees(found, original)


def test_a_pruned_network_is_saved_and_loaded(tmp_path, subject, data):
    found = pruned(subject, resolved(subject, "40%"), Recipe(), data)
    save_pruned(tmp_path / "net", found.module, {"depth": 8}, found.history)
    loaded = load_pruned(tmp_path / "net", lambda source: CifarResNet(source["depth"]), partial(replay, example=EXAMPLE))
    assert same_weights(loaded, found.module)


def test_equal_scores_go_in_order(subject):
    group = subject.groups[0]
    scores = {group.name: [1.0, 0.5, 0.5, 2.0, 0.5]}
    five = replace(group, width=5)
    assert lowest([five], scores, {group.name: 3}) == (Cut(group.name, (1, 2)),)
    assert lowest([five], scores, {group.name: 5}) == lowest([five], scores, {}) == ()


# -- several steps


@pytest.mark.parametrize("with_data", [True, False])
def test_two_steps_rank_what_is_left(with_data, original, subject, data):
    ranks = []

    def report(label: str, done: int, total: int) -> None:
        if label.startswith("importance") and done == total:
            ranks.append(label)

    budgets = resolved(subject, "30%")
    found = pruned(subject, budgets, Recipe("l2", steps=2), data if with_data else Calibration(), report)
    assert ranks == ["importance l2"] * 2 and 0.95 < max(used(found, budgets)) <= 1
    assert len({cut.group for cut in found.history.cuts}) == len(found.history.cuts)
    assert found.history.widths_before(found.keep) == subject.widths.full
    check_that_all_agrees(found, original)


def test_a_budget_that_holds_after_a_step_stays_kept(subject):
    """The second one alone asks for more than the first one."""
    budgets = resolved(subject, "90%", "20%params")
    found = pruned(subject, budgets, Recipe("l2", "uniform", steps=3, least=0.05))
    macs, params = used(found, budgets)
    assert macs < 0.9 and 0.95 < params <= 1


# -- blocks


@pytest.fixture(scope="module")
def deep():
    return analysed(resnet(14), EXAMPLE)


def test_blocks_go_where_cutting_alone_cannot_do_it(deep, data):
    budgets = resolved(deep, "30%")
    recipe = Recipe("l2", "uniform", depth=True, least=0.6)
    with pytest.raises(InfeasibleBudget):
        pruned(deep, budgets, replace(recipe, depth=False), data)
    found = pruned(deep, budgets, recipe, data)
    assert found.history.blocks and set(found.history.blocks) <= {"layer1.0", "layer1.1", "layer2.1", "layer3.1"}
    assert 0.9 < used(found, budgets)[0] <= 1
    check_that_all_agrees(found, deep.module)


def test_neither_cuts_nor_blocks_keep_the_budget(subject, data):
    with pytest.raises(InfeasibleBudget, match="no cut keeps 2%: the smallest, 60% of each of 3 groups"):
        pruned(subject, resolved(subject, "2%"), Recipe("l2", "uniform", depth=True, least=0.6), data)


def test_where_removed_blocks_are_enough_norms_are_recalibrated(deep, data):
    budgets = resolved(deep, "99%")
    nothing = Recipe("random", "uniform", depth=True, least=1.0)
    found = pruned(deep, budgets, nothing, data)
    assert len(found.history.blocks) == 1 and found.history.cuts == ()
    expected = without(deep.module, found.history.blocks)
    alone = {name: without(deep.module, [name]).eval() for name in ("layer1.0", "layer1.1", "layer2.1", "layer3.1")}
    losses = divergences(deep.module, alone, data.curves)
    assert found.history.blocks == (min(losses, key=losses.__getitem__),)
    recalibrate(expected, data.norms)
    assert same_weights(found.module, expected)
    check_that_all_agrees(found, deep.module)


def test_blocks_and_steps_together(deep, data):
    found = pruned(deep, resolved(deep, "97%"), Recipe("l2", "uniform", depth=True, steps=2), data)
    check_that_all_agrees(found, deep.module)
    assert not check(resolved(deep, "97%"), found.subject.cost)


# -- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"importance": "l3"}, "importance 'l3' is not known; choose auto or one of l1, l2, "),
        ({"allocation": "equal"}, "allocation 'equal' is not known; choose auto or one of uniform, "),
        ({"steps": 0}, "steps is 0; a network is cut in 1 step or more"),
        ({"round_to": 0}, "round_to 0 and least 0.1 given"),
        ({"least": 1.5}, "round_to 8 and least 1.5 given"),
    ],
)
def test_recipes_that_are_none(options, message):
    with pytest.raises(InvalidSetting, match=message):
        Recipe(**options)


@pytest.mark.parametrize("importance", sorted(CALIBRATED))
def test_importances_that_need_data(importance, subject):
    with pytest.raises(InvalidSetting, match=f"importance '{importance}' needs data; give --data, or choose l2"):
        pruned(subject, resolved(subject, "50%"), Recipe(importance))


class Fixed(nn.Module):
    """Every channel is an input or an output."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x).mean((2, 3))


def test_nothing_to_cut():
    with pytest.raises(InvalidSetting, match="nothing of Fixed can be cut; what holds its channels: every channel reaches"):
        analysed(Fixed(), EXAMPLE)


def test_blocks_need_data_and_blocks(deep, data):
    with pytest.raises(InvalidSetting, match="--depth judges networks by their outputs; give --data"):
        pruned(deep, resolved(deep, "50%"), Recipe(depth=True))
    plain = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    flat = analysed(plain, EXAMPLE)
    with pytest.raises(InvalidSetting, match="--depth: Sequential has no residual block that could go; leave it out"):
        pruned(flat, resolved(flat, "50%"), Recipe(depth=True), data)


def test_budgets_that_cannot_be_kept_or_judged(subject):
    with pytest.raises(InfeasibleBudget, match="no cut keeps 1%: the smallest, 10% of each of 4 groups, has"):
        pruned(subject, resolved(subject, "1%"), Recipe())
    with pytest.raises(InvalidBudget, match="budget '5ms' cannot be judged"):
        pruned(subject, [Budget.parse("5ms")], Recipe())
