"""The numbers behind the page: fronts and hypervolume over time, what choices explain, blocks of layers."""

from dataclasses import replace

import numpy as np
import pytest
from report_run import config, finish, layers_json, start, trials

from nas.report.choices import choice_effects, explained
from nas.report.contents import Contents, Network, TrialRow, read_contents
from nas.report.explorer import explore
from nas.report.fronts import front_of_many, fronts_over_time
from nas.report.history import read_history, thinned
from nas.report.layers import FILE, block_name, blocks, merged, read_layers
from nas.report.training import LOG, Curve, last_step, read_curves
from nas.trial import hypervolume, pareto_front

# -- fronts


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_front_of_many_points_is_the_front(objectives):
    points = np.random.default_rng(0).integers(0, 40, (900, objectives)).astype(float)  # with ties
    points[::50, 0] = np.nan
    assert front_of_many(points) == pareto_front(points)
    assert front_of_many(points[:0]) == []


def test_fronts_grow_with_the_points():
    points = np.random.default_rng(1).random((100, 2))
    found = list(fronts_over_time(points, 7))
    assert [n for n, _ in found] == [15, 30, 45, 60, 75, 90, 100]
    assert [sorted(front) for _, front in found] == [sorted(pareto_front(points[:n])) for n, _ in found]


def rows(*found: tuple[str, float, float | None]) -> tuple[TrialRow, ...]:
    """Trials by state, multiply-adds and validation accuracy."""
    scores = [{} if score is None else {"val_accuracy": score} for _, _, score in found]
    return tuple(
        TrialRow(i, state, Network(f"k{i}", {"depth": i}, {"macs": macs, **score}))
        for i, ((state, macs, _), score) in enumerate(zip(found, scores, strict=True))
    )


def contents(tmp_path, trials: tuple[TrialRow, ...]) -> Contents:
    with start(tmp_path / "run") as run:
        read = read_contents(run)
    return replace(read, trials=trials, front=tuple(t.network for t in trials if t.state == "complete"))


def test_history_by_hand(tmp_path):
    # the budget is 3e6; the third is over it although it was evaluated
    seen = rows(("complete", 2e6, 0.5), ("infeasible", 4e6, None), ("complete", 3.5e6, 0.9), ("complete", 1e6, 0.7))
    history = read_history(contents(tmp_path, seen))
    assert history.shown == ((0, 0.5), (2, 0.9), (3, 0.7))
    assert history.best == ((0, 0.5), (3, 0.7), (3, 0.7))
    assert history.feasible == ((0, 1.0), (1, 1 / 2), (2, 1 / 3), (3, 2 / 4))
    # error from 0.3 to 0.5 and multiply-adds from 1e6 to 3e6: the first is a corner without volume, the last is the ideal
    assert history.volume == ((0, 0.0), (3, pytest.approx(1.0)))


def test_hypervolume_ends_as_that_of_the_whole_front(tmp_path):
    with start(tmp_path / "run") as run:
        read = read_contents(run)
    kept = [t.network.metrics for t in read.evaluated]
    points = np.array([[1 - m["val_accuracy"], m["macs"]] for m in kept])
    ideal, worst = points.min(axis=0), np.array([points[:, 0].max(), 3e6])
    volume = read_history(read).volume
    assert volume[-1][1] == pytest.approx(hypervolume((points - ideal) / (worst - ideal), [1, 1]))
    assert [v for _, v in volume] == sorted(v for _, v in volume)


def test_thinning_keeps_the_ends():
    assert thinned(range(10), 4) == [0, 3, 6, 9] and thinned([1, 2], 4) == [1, 2]


# -- choices


def test_explained_variance_by_hand():
    values = np.array([1.0, 3.0, 5.0, 7.0])
    # within: 2 + 2, total 20, one group more than the mean: 1 - (4 / 2) / (20 / 3)
    assert explained([0, 0, 1, 1], values) == pytest.approx(0.7)
    assert explained([0, 1, 0, 1], np.array([1.0, 1.0, 3.0, 3.0])) == 0
    assert explained([0, 0, 1, 1], np.array([1.0, 1.0, 2.0, 2.0])) == 1
    assert explained([0, 0, 0], values[:3]) is explained([0, 1, 2], values[:3]) is None
    assert explained([0, 1, 0], np.ones(3)) is None


def test_a_choice_without_an_effect_explains_nothing_in_the_mean():
    rng = np.random.default_rng(0)
    found = [explained(rng.integers(0, 5, 60), rng.normal(size=60)) for _ in range(200)]
    assert np.median(found) < 0.01 and np.mean(found) < 0.03


def test_the_choice_that_matters_comes_first(tmp_path):
    rng = np.random.default_rng(2)
    found = []
    for i in range(120):
        kernel, width, act = (int(rng.choice(v)) for v in ((3, 5), (16, 24, 32), (0, 1)))
        macs = 1e5 * width * float(rng.uniform(0.9, 1.1))
        accuracy = 0.5 + 0.1 * np.log(macs / 1e6) + 0.05 * (kernel == 5) + 0.002 * float(rng.normal())
        choices = {"width": width, "kernel": kernel, "act": act}
        found.append(TrialRow(i, "complete", Network(f"k{i}", choices, {"macs": macs, "val_accuracy": accuracy})))
    read = contents(tmp_path, tuple(found))
    best = tuple(t.network for t in found if t.network.choices["kernel"] == 5)[:10]
    effects = {e.name: e for e in choice_effects(replace(read, front=best))}
    assert list(effects)[-1] == "act" and effects["act"].explained < 0.05
    # at equal cost the width is worth nothing and the kernel nearly all
    assert effects["kernel"].at_equal_cost > 0.95 > 0.1 > effects["width"].at_equal_cost
    assert effects["width"].explained > effects["kernel"].explained > 0.1
    three, five = effects["kernel"].options
    assert (three.option, five.option, three.front, five.front) == (3, 5, 0.0, 1.0)
    assert three.population + five.population == 1
    assert choice_effects(replace(read, trials=read.trials[:19])) == []


# -- layers


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("stages.1.0.expand", "stages.1.0"),
        ("features.3.conv.0.0", "features.3"),
        ("layer1.0.conv1", "layer1.0"),
        ("layer2.0.downsample.0", "layer2.0"),
        ("features.0.0", "features.0.0"),
        ("s0.b1.expand", "s0.b1"),
        ("encoder.layer_3.mlp", "encoder.layer_3"),
        ("last.conv", "last"),
        ("stem", "stem"),
        ("add_1", "add_1"),
    ],
)
def test_blocks_are_named_after_their_place(layer, block):
    assert block_name(layer) == block


def test_layers_are_joined_to_blocks(tmp_path):
    with start(tmp_path / "run") as run:
        assert read_layers(run, "k", {}) is None
        run.write_json(FILE, layers_json("k"))
        assert read_layers(run, "another", {}) is None
        layers = read_layers(run, "k", {"s.0.a.conv": "8"})
    ours, theirs = blocks(layers.chosen), blocks(layers.reference)
    assert [(b.name, b.width, b.stride, b.bits, b.skip) for b in ours] == [
        ("stem", 8, 1, (), False), ("s.0", 8, 2, ("8",), False), ("fc", 8, 1, (), False),
    ]  # fmt: skip
    assert [(b.name, b.width, b.skip) for b in theirs][1:3] == [("s.0", 16, False), ("s.1", 16, True)]
    assert [(c.name, c.chosen, c.reference) for c in layers.costs][:3] == [
        ("stem", 100, 100),
        ("s.0", 100, 100),
        ("s.1", None, 100),
    ]


def test_lists_of_blocks_are_merged_in_order():
    assert merged(list("acd"), list("abcde")) == list("abcde")
    assert merged(list("axc"), list("abc")) == list("axbc")
    assert merged([], ["a"]) == merged(["a"], []) == ["a"]


# -- trainings


def test_trainings_are_read_by_name(tmp_path):
    with start(tmp_path / "run") as run:
        assert read_curves(run) == () and last_step(run, "training") == 0
        for name, step, loss in (("training", 5, 2.0), ("tuning", 1, 1.0), ("training", 10, 1.5)):
            run.append_line(LOG, {"training": name, "step": step, "steps": 20, "epoch": step // 5, "loss": loss, "lr": 0.1})
        assert read_curves(run) == (Curve("training", (0.25, 0.5), (2.0, 1.5), 3), Curve("tuning", (0.05,), (1.0,), 1))
        assert last_step(run, "training") == 10


# -- what the figure shows of many


def test_a_selection_of_many_networks_keeps_the_front(tmp_path, monkeypatch):
    monkeypatch.setattr("nas.report.explorer.MOST_SHOWN", 10)
    with start(tmp_path / "run", budgets=config()["budgets"]) as run:
        finish(run)
        read = read_contents(run)
    explorer = explore(read)
    keys = [e.network.key for e in explorer.entries]
    assert len(keys) == 1 + len(read.front) + 10 and {n.key for n in read.front} <= set(keys)
    assert len(explorer.traces[0].members) == 10
    assert explorer.traces[0].name == f"evaluated ({sum(bool(t.scores) for t in trials())})"
