"""Trials as JSON; dominance, fronts and hypervolume against brute force."""

import json
from itertools import combinations

import numpy as np
import pytest
from toy_space import ToySpace

from nas.budget import Cost, Metric
from nas.seeding import numpy_rng
from nas.trial import Trial, dominates, fronts, hypervolume, pareto_front


def grids(dimensions: int, count: int = 25) -> list[np.ndarray]:
    """Random points on a coarse grid: many ties and duplicates."""
    rng = numpy_rng(dimensions, "points")
    return [rng.integers(0, 5, size=(int(rng.integers(1, 9)), dimensions)).astype(float) for _ in range(count)]


ALL = [points for dimensions in (1, 2, 3, 4) for points in grids(dimensions)]


# -- trials


def trial(**changes) -> Trial:
    metrics = {
        "macs": Metric(3e6, "multiply-adds", "plan"),
        "latency_ms": Metric(1.25, "ms", "measured", spread=0.1, context="cpu, fp32, batch 1"),
    }
    fields = {
        "number": 3,
        "architecture": ToySpace().largest(),
        "state": "complete",
        "cost": Cost(metrics, uncounted=("aten::fft",)),
        "scores": {"val_accuracy": 1 / 3},
        "seconds": 1.23456789,
    }
    return Trial(**{**fields, **changes})


@pytest.mark.parametrize(
    "one",
    [
        trial(),
        trial(state="infeasible", scores={}, cost=Cost()),
        trial(state="failed", scores={}, error="TrainingDiverged: loss is nan\n"),
    ],
)
def test_trial_comes_back_from_json(one):
    data = json.loads(json.dumps(one.to_json(), allow_nan=False))
    again = Trial.from_json(data, ToySpace().from_json(data["architecture"]))
    assert again.same_as(one) and one.same_as(again)
    assert again.to_json() == one.to_json()
    assert again.cost == one.cost
    assert (again.number, again.architecture, again.state, again.error) == (one.number, one.architecture, one.state, one.error)
    assert again.scores == one.scores
    assert again.seconds == pytest.approx(one.seconds, abs=1e-4)
    assert data["key"] == one.architecture.key


def test_times_aside_every_field_counts():
    assert trial().same_as(trial(seconds=99.0))
    for change in (
        {"number": 4},
        {"architecture": ToySpace().smallest()},
        {"state": "failed"},
        {"cost": Cost()},
        {"scores": {"val_accuracy": 0.3}},
        {"error": "x"},
    ):
        assert not trial().same_as(trial(**change))


# -- dominance


def test_dominance():
    assert dominates(np.array([1, 1]), np.array([1, 2]))
    assert dominates(np.array([0, 0]), np.array([1, 2]))
    assert not dominates(np.array([1, 1]), np.array([1, 1]))
    assert not dominates(np.array([0, 2]), np.array([1, 1]))
    assert not dominates(np.array([1, 2]), np.array([1, 1]))


@pytest.mark.parametrize("points", ALL)
def test_fronts_by_brute_force(points):
    left, expected = list(range(len(points))), []
    while left:
        front = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        expected.append(front)
        left = [i for i in left if i not in front]
    assert [f.tolist() for f in fronts(points)] == expected


def test_fronts_of_nothing_and_of_equal_points():
    assert fronts(np.empty((0, 2))) == []
    assert [f.tolist() for f in fronts(np.ones((3, 2)))] == [[0, 1, 2]]


@pytest.mark.parametrize("points", ALL)
def test_pareto_front_by_brute_force(points):
    best = [i for i in range(len(points)) if not any(dominates(q, points[i]) for q in points)]
    expected = [i for i in best if not any(np.array_equal(points[i], points[j]) for j in best if j < i)]
    front = pareto_front(points)
    assert sorted(front) == expected
    assert list(points[front, -1]) == sorted(points[front, -1])
    assert len({tuple(points[i]) for i in front}) == len(front)


def test_pareto_front_of_lists():
    assert pareto_front([]) == []
    assert pareto_front([[0.2, 5.0], [0.1, 9.0], [0.3, 5.0], [0.2, 5.0], [0.4, 1.0]]) == [4, 0, 1]
    assert all(type(i) is int for i in pareto_front(np.eye(3)))


def test_what_is_not_known_is_not_on_the_front():
    nan = float("nan")
    assert pareto_front([[nan, 0.0], [2.0, 2.0], [0.0, nan], [1.0, 3.0]]) == [1, 3]
    assert pareto_front([[nan, nan]]) == []


# -- hypervolume


def union_of_boxes(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume of the union of the boxes [point, reference], by inclusion and exclusion: exact on integers."""
    boxes = [p for p in points if np.all(p < reference)]
    return sum(
        (-1) ** (n + 1) * float(np.prod(reference - np.max(chosen, axis=0)))
        for n in range(1, len(boxes) + 1)
        for chosen in combinations(boxes, n)
    )


@pytest.mark.parametrize("points", ALL)
@pytest.mark.parametrize("corner", [3.0, 5.0])
def test_hypervolume_by_inclusion_and_exclusion(points, corner):
    reference = np.full(points.shape[1], corner)
    assert hypervolume(points, reference) == union_of_boxes(points, reference)


@pytest.mark.parametrize("points", ALL[::7])
def test_hypervolume_does_not_depend_on_order_duplicates_or_dominated_points(points):
    reference = np.full(points.shape[1], 6.0)
    volume = hypervolume(points, reference)
    assert hypervolume(points[::-1], reference) == volume
    assert hypervolume(np.concatenate([points, points]), reference) == volume
    assert hypervolume(np.concatenate([points, points + 1]), reference) == volume
    assert hypervolume(points[pareto_front(points)], reference) == volume
    for axes in (range(points.shape[1])[::-1], np.roll(np.arange(points.shape[1]), 1)):
        assert hypervolume(points[:, list(axes)], reference) == volume


def test_hypervolume_of_simple_shapes():
    assert hypervolume(np.array([[0.0, 0.0]]), [2.0, 3.0]) == 6.0
    assert hypervolume(np.array([[0.0, 1.0], [1.0, 0.0]]), [2.0, 2.0]) == 3.0
    assert hypervolume(np.array([[2.0, 0.0], [5.0, 5.0]]), [2.0, 3.0]) == 0.0
    assert hypervolume(np.empty((0, 2)), [2.0, 3.0]) == 0.0
    assert hypervolume(np.array([]), [2.0, 3.0]) == 0.0
    assert hypervolume(np.array([[float("nan"), 0.0], [1.0, 1.0]]), [2.0, 3.0]) == 2.0


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("options", [2, 3, 50])
def test_fronts_of_few_values_are_those_of_all_pairs(objectives, options):
    for seed in range(8):
        points = np.random.default_rng(seed).integers(0, options, (40, objectives)).astype(float)
        best = {tuple(p) for p in points if not any(dominates(q, p) for q in points)}
        found = [tuple(points[i]) for i in pareto_front(points)]
        assert set(found) == best and len(found) == len(best)
        assert {tuple(points[i]) for i in fronts(points)[0]} == best


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_front_of_many_networks_needs_no_pairs(objectives):
    points = np.random.default_rng(0).random((20_000, objectives))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # none dominates another one
    assert sorted(pareto_front(points)) == list(range(20_000))


def test_the_area_below_a_front_of_many_networks():
    x = np.linspace(0.0, 1.0, 1001)
    assert hypervolume(np.stack([x, 1 - x], axis=1), [1.0, 1.0]) == pytest.approx(0.5, abs=1e-3)
