"""Choosing a space by evidence: which forms are tried, and that the chosen one meets the budget."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nas.budget import check, parse_all
from nas.cli.choosing import HANDFUL, LEAST_FRACTION, Wanted, candidates, handful, sides
from nas.cli.clocking import PART, by_the_clock
from nas.cli.contest import CALIBRATION, Contest, choose
from nas.cost.counting import count
from nas.data.augment import Augmentation
from nas.data.dataset import ArraySplit, Dataset
from nas.evaluation.alone import AloneEvaluator, Lesson, fresh, some_of, teach
from nas.evaluation.supernet import calibrate
from nas.seeding import derive
from nas.training.loop import TrainConfig
from search_spaces import SPACES
from search_spaces.convnet import ConvNetOptions
from search_spaces.plain import OPTIONS, PLAIN
from search_spaces.staged import DataShape

CPU = torch.device("cpu")
FAMILIES = {name: SPACES[name] for name in ("convnet", "resnet", "mobilenet")}
CONVNET = {"convnet": SPACES["convnet"]}


def bars(count_=200, side=12):
    """Images of horizontal and vertical bars: a small network tells them apart after a few steps."""
    rng = np.random.default_rng(0)
    labels = np.arange(count_) % 2
    images = rng.integers(0, 40, (count_, 1, side, side))
    for image, label, at in zip(images, labels, rng.integers(0, side - 2, count_), strict=True):
        image[0, at : at + 2, :] += 180 * (1 - label)
        image[0, :, at : at + 2] += 180 * label
    split = ArraySplit(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels.astype(np.int64)))
    return Dataset("bars", split, split, lambda: split, ("h", "v"), 1, side, (0.2,), (0.3,), False, "0")


def lesson(steps=4):
    return Lesson(bars(), Augmentation(0, False, classes=2), TrainConfig(1, 32, lr=0.1, steps=steps))


def wanted(shape, budgets, families, options=None):
    options = options or {name: family.options() for name, family in families.items()}
    return Wanted(shape, parse_all(budgets), options, None)


@pytest.mark.parametrize(
    ("shape", "budgets"),
    [
        (DataShape(1, 28, 10), ("2MFLOPs",)),
        (DataShape(3, 32, 10), ("2MFLOPs",)),
        (DataShape(3, 32, 10), ("20MFLOPs", "100kparams")),
        (DataShape(3, 224, 1000), ("300MFLOPs",)),
    ],
)
def test_every_candidate_meets_all_budgets_at_the_full_resolution(shape, budgets):
    found = candidates(FAMILIES, wanted(shape, budgets, FAMILIES))
    assert {c.family for c in found} >= {"convnet", "resnet"}
    for candidate in found:
        plan = candidate.space.plan(candidate.space.largest())
        assert check(parse_all(budgets), count(plan)) == []
        assert plan.input_size == (shape.resolution, shape.resolution)
    assert [c.macs for c in found] == sorted((c.macs for c in found), reverse=True)


def test_plain_networks_are_what_their_names_say():
    shape = DataShape(3, 32, 10)
    found = {c.family: c for c in candidates(PLAIN, wanted(shape, ("40MFLOPs",), PLAIN, OPTIONS))}
    assert set(found) == {"cnn", "resnet", "mobilenet"}
    kinds = {name: {(x.op, x.groups > 1) for x in c.space.plan(c.space.largest()).layers} for name, c in found.items()}
    assert ("conv", True) in kinds["mobilenet"] and ("conv", True) not in kinds["cnn"] | kinds["resnet"]
    assert ("add", False) in kinds["resnet"] and ("add", False) not in kinds["cnn"]
    # ResNet-20 has 40.8 M multiply-adds at widths of 16, 32, 64
    assert found["resnet"].macs == pytest.approx(40e6, rel=0.2)


@pytest.mark.parametrize("families", [FAMILIES, PLAIN], ids=["searched", "plain"])
@pytest.mark.parametrize(
    ("side", "budget"), [(8, "100kFLOPs"), (28, "300kFLOPs"), (32, "20kB"), (64, "300kFLOPs"), (224, "2MFLOPs")]
)
def test_small_budgets_have_networks_at_a_resolution_that_suits_them(side, budget, families):
    options = OPTIONS if families is PLAIN else None
    found = candidates(families, wanted(DataShape(3, side, 10), (budget,), families, options))
    assert found
    for candidate in found:
        space = candidate.space
        assert check(parse_all((budget,)), count(space.plan(space.largest()))) == []
        assert (
            space.resolutions == (candidate.form.side,) and space.plan(space.largest()).input_size == (candidate.form.side,) * 2
        )


def test_half_the_resolution_is_tried_only_where_the_budget_is_tight():
    def limit(text):
        return parse_all((text,))

    assert sides(28, limit("2MFLOPs")) == (28,) and sides(32, limit("2MFLOPs")) == (32,)
    assert sides(28, limit("300kFLOPs")) == (28, 14) and sides(224, limit("20MFLOPs")) == (224, 112)
    assert sides(224, limit("300MFLOPs")) == (224,) and sides(8, limit("10kFLOPs")) == (8,)
    assert sides(224, limit("20kB")) == (224,)
    asked = wanted(DataShape(1, 28, 10), ("300kFLOPs",), CONVNET, {"convnet": ConvNetOptions(resolutions=(20,))})
    assert {c.space.resolutions for c in candidates(CONVNET, asked)} == {(20,)}


@pytest.mark.parametrize(
    ("side", "budget"), [(8, "300kFLOPs"), (8, "3MFLOPs"), (32, "3MFLOPs"), (28, "2MFLOPs"), (32, "20MFLOPs")]
)
def test_every_supernet_has_networks_within_the_budget(side, budget):
    asked, limits = wanted(DataShape(1, side, 10), (budget,), FAMILIES), parse_all((budget,))
    for candidate in candidates(FAMILIES, asked):
        space = candidate.with_room(asked)
        assert check(limits, count(space.plan(space.smallest()))) == []
        assert candidate.macs <= count(space.plan(space.largest())).values()["macs"] <= 2 * limits[0].limit


def test_plain_forms_with_an_early_stride_are_spare():
    def forms(budget):
        return {c.form.macro.name for c in candidates(PLAIN, wanted(DataShape(1, 28, 10), (budget,), PLAIN, OPTIONS))}

    assert not any("stride 2" in name for name in forms("20MFLOPs"))
    assert {"dense CNN", "ResNet-8, stem of stride 2", "MobileNetV2, stem of stride 2"} <= forms("2MFLOPs")


@dataclass(frozen=True)
class Stopwatch:
    """Stands for a bench on which a multiply-add of a network with depthwise convolutions takes three times as long."""

    measuring: object = None

    def time_plans(self, plans):
        slow = {name: 3 if any(x.groups > 1 for x in plan.layers) else 1 for name, plan in plans.items()}
        return {n: SimpleNamespace(ms=0.001 + slow[n] * count(p).values()["macs"] / 1e9) for n, p in plans.items()}


def test_a_budget_in_ms_is_used_by_every_form_by_the_clock(monkeypatch):
    half = parse_all(("3MFLOPs",))[0]
    monkeypatch.setattr("nas.cli.choosing.sizing", lambda budgets, *rest: [replace(half, text=b.text) for b in budgets])
    asked = replace(wanted(DataShape(1, 28, 10), ("0.01ms",), FAMILIES), bench=Stopwatch())
    found = by_the_clock(candidates(FAMILIES, asked), asked)
    assert {c.family for c in found} == {"convnet", "resnet", "mobilenet"}
    for c in found:
        ms = Stopwatch().time_plans({"": c.space.plan(c.space.largest())})[""].ms
        assert c.cost["latency_ms"] == ms and ms <= PART * 0.01
    most = {name: max(c.macs for c in found if c.family == name) for name in FAMILIES}
    assert 7e6 < most["convnet"] < 8.4e6 and 2e6 < most["mobilenet"] < 2.8e6
    few = replace(asked, budgets=parse_all(("0.001ms",)))
    assert len(by_the_clock(candidates(FAMILIES, few), few)) == 1
    assert by_the_clock([], few) == []


def test_the_one_that_learns_is_chosen_and_evidence_is_kept():
    found = candidates(CONVNET, wanted(DataShape(1, 12, 2), ("1MFLOPs",), CONVNET))
    assert len(found) > 1
    choice = choose(found, lesson(), 0, CPU, most_steps=4)
    again = choose(found, lesson(), 0, CPU, most_steps=4)
    assert choice.candidate == again.candidate
    drop = ("step_ms",)
    rows = [[{k: v for k, v in row.items() if k not in drop} for row in c.evidence] for c in (choice, again)]
    assert rows[0] == rows[1] and {row["round"] for row in rows[0]} >= {0, 1}
    end = rows[0][-1]["round"]
    last = {row["space"]: row["val_accuracy"] for row in rows[0] if row["round"] == end}
    assert last[choice.candidate.space.id] >= max(last.values()) - 0.05


def test_the_weights_of_the_chosen_one_are_those_of_its_short_trainings_one_after_another():
    found = candidates(CONVNET, wanted(DataShape(1, 12, 2), ("1MFLOPs",), CONVNET))
    choice = choose(found, lesson(), 0, CPU, most_steps=4)
    space = choice.candidate.space
    module = fresh(space, space.largest(), 0, CPU)
    for row in (row for row in choice.evidence if row["space"] == space.id):
        own = lesson(row["steps"])
        teach(module, replace(own, config=replace(own.config, seed=derive(0, "round", row["round"]))), 12)
        calibrate(module, own.data, 12, 0, CALIBRATION)
    assert all(torch.equal(tensor, choice.candidate.weights[name]) for name, tensor in module.state_dict().items())


@pytest.fixture
def told(monkeypatch):
    """Trainings that end with the accuracies that a test names, by detail and number of the training of that network."""

    def tell(accuracies):
        trained = []

        def train(contest, candidate, number, steps):
            trained.append((candidate.space.id, candidate.detail, steps))
            times = sum(space == candidate.space.id for space, *_ in trained)
            return replace(candidate, step_seconds=0.01), accuracies[candidate.detail][times - 1]

        monkeypatch.setattr(Contest, "train", train)
        return trained

    return tell


def test_the_best_of_either_detail_meet_in_a_longer_last_round(told):
    found = candidates(CONVNET, wanted(DataShape(1, 12, 2), ("4MFLOPs",), CONVNET))
    assert {c.detail for c in found} == {6, 12}
    trained = told({6: [0.8, 0.85, 0.9], 12: [0.7, 0.82, 0.95]})
    choice = choose(found, lesson(), 0, CPU, seconds=100.0)
    assert choice.candidate.detail == 12 and [row["round"] for row in choice.evidence].count(2) == 2
    last, second = trained[-1][2], trained[len(found)][2]
    assert last > 3 * second and trained[-2][1] != trained[-1][1]


def test_what_is_clearly_behind_is_not_trained_again(told):
    found = candidates(CONVNET, wanted(DataShape(1, 12, 2), ("4MFLOPs",), CONVNET))
    told({6: [0.8, 0.9], 12: [0.6, 0.7]})
    choice = choose(found, lesson(), 0, CPU, seconds=100.0)
    assert choice.candidate.detail == 6 and {row["round"] for row in choice.evidence} == {0, 1}


def test_one_of_another_detail_is_among_the_last_four(told):
    found = candidates(CONVNET, wanted(DataShape(1, 12, 2), ("4MFLOPs",), CONVNET))
    many = [
        replace(c, space=replace(c.space, stem=(c.space.stem[0] + 8 * n, c.space.stem[1]))) for n in range(3) for c in found
    ]
    told({6: [0.9, 0.9], 12: [0.5, 0.5]})
    choice = choose(many, lesson(), 0, CPU, seconds=100.0)
    resolutions = [row["space"] for row in choice.evidence if row["round"] == 1]
    assert len(resolutions) == 4
    assert sorted(c.detail for c in many if c.space.id in resolutions) == [6, 6, 6, 12]


@pytest.mark.parametrize(("weights", "detail"), [({6: 700_000, 12: 500_000}, 12), ({6: 70_000, 12: 29_000}, 6)])
def test_of_equal_accuracies_the_finer_is_taken_if_it_has_the_weights(told, weights, detail):
    found = candidates(CONVNET, wanted(DataShape(1, 12, 2), ("4MFLOPs",), CONVNET))
    found = [replace(c, cost={**c.cost, "params": weights[c.detail]}) for c in found]
    told({6: [0.9, 0.9, 0.9], 12: [0.9, 0.9, 0.9]})
    assert choose(found, lesson(), 0, CPU, seconds=100.0).candidate.detail == detail


def test_where_time_is_short_smaller_networks_are_compared():
    asked = wanted(DataShape(1, 12, 2), ("4MFLOPs",), CONVNET)
    found = candidates(CONVNET, asked)
    every = handful(found, asked, lesson(), (0, CPU), 0.0)
    assert {c.detail for c in every} == {6, 12} and {c.fraction for c in every} == {1.0}
    assert all(len([c for c in every if c.detail == detail]) <= HANDFUL for detail in (6, 12))
    shortest = min(c.step_seconds for c in every) * len(lesson().data.train) / 32
    few = handful(found, asked, lesson(), (0, CPU), 0.6 * shortest)
    assert {c.fraction for c in few} == {LEAST_FRACTION}
    assert max(c.macs for c in few) <= LEAST_FRACTION * 4e6
    # where not even those see the data a few times, the fastest is left
    assert len(handful(found, asked, lesson(), (0, CPU), 1e-9)) == 1


def test_training_alone_depends_on_the_seed_and_the_network_alone():
    space = candidates(CONVNET, wanted(DataShape(1, 12, 2), ("1MFLOPs",), CONVNET))[0].space
    large, small = space.largest(), space.smallest()
    evaluator = AloneEvaluator(space, lesson(), 0, CPU)
    first = evaluator(large)
    evaluator(small)
    torch.rand(3)
    assert evaluator(large) == first
    assert AloneEvaluator(space, lesson(), 1, CPU)(large) != first
    weights = fresh(space, large, 0, CPU).state_dict()
    assert all(torch.equal(t, weights[n]) for n, t in evaluator.plain(large).state_dict().items())


def test_some_validation_images_are_a_fixed_draw():
    data = bars()
    some = some_of(data, 50, 0)
    assert len(some.val) == 50 and torch.equal(some.val.labels, some_of(data, 50, 0).val.labels)
    assert some_of(data, 500, 0) is data


def test_a_training_ends_at_its_steps():
    family = SPACES["convnet"]
    space = family.make(DataShape(1, 12, 2), family.macros[-1], 0.5, family.options())
    from nas.training.loop import Checkpoints, train
    from nas.training.objectives import classification

    module = fresh(space, space.largest(), 0, CPU)
    own = lesson(steps=9)  # 6 steps are an epoch
    steps = list(train(module, classification(module), own.data, own.augmentation, own.config, Checkpoints()))
    assert [s.step for s in steps] == list(range(1, 10)) and steps[-1].steps == 9 and steps[-1].epoch == 1
    assert replace(own.config, steps=None).epochs == 1
