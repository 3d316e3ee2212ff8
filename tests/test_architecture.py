"""Choices, architectures, spaces: one network, one key."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pytest
from contracts.space import SpaceContract, raw_assignments
from toy_space import ToySpace

from nas.architecture import Architecture, Choice, SearchSpace, short_hash
from nas.errors import InvalidArchitecture
from nas.seeding import numpy_rng


@dataclass(frozen=True)
class ListedSpace(ToySpace):
    """A space of given choices; it has no networks."""

    name: ClassVar[str] = "listed"

    listed: tuple[tuple, ...] = ()

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(Choice(*fields) for fields in self.listed)


def listed(*choices: Choice) -> ListedSpace:
    return ListedSpace(listed=tuple((c.name, c.options, c.active_when) for c in choices))


class TestToySpace(SpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return ToySpace()


class TestToySpaceOfOneWidth(SpaceContract):
    @pytest.fixture
    def space(self) -> SearchSpace:
        return ToySpace(in_channels=3, resolutions=(8,), classes=2, widths=(4,))


# -- one network, one key


def test_toy_space_is_counted_by_hand():
    # resolution 2 x width 2 x kernel0 2; depth 1: gate off, or on with 2 ratios; depth 2: 3 kernels, gates off, or 3 on x 2
    assert ToySpace().size() == 2 * 2 * 2 * ((1 + 2) + 3 * (1 + 3 * 2)) == 192
    assert sum(1 for _ in raw_assignments(ToySpace())) == 2 * 2 * 2 * 2 * 2 * 2 * 3 * 2


def test_inactive_decisions_are_dropped():
    space = ToySpace()
    values = {**space.largest().choices, "depth": 1, "gate0": False}
    archs = {space.architecture({**values, "kernel1": k, "ratio": r}) for k in (1, 3, 5) for r in (2, 3)}
    assert len(archs) == 1
    assert list(archs.pop().choices) == ["resolution", "width", "depth", "gate0", "kernel0", "pool"]


@pytest.mark.parametrize(("given", "option"), [(True, 1), (1.0, 1), (np.int64(2), 2), (np.bool_(True), 1), (np.float64(2), 2)])
def test_what_equals_an_option_is_the_option(given, option):
    space = listed(Choice("a", (1, 2)))
    arch = space.architecture({"a": given})
    assert type(arch.choices["a"]) is int
    assert arch.key == space.architecture({"a": option}).key
    assert json.loads(json.dumps(arch.to_json())) == arch.to_json()


def test_key_names_space_version_and_settings():
    arch = ToySpace().smallest()
    assert arch.key != ToySpace(classes=4).smallest().key
    assert arch.key == short_hash({"space": arch.space, "choices": dict(arch.choices)})
    assert ToySpace().id != ToySpace(classes=4).id
    with pytest.raises(InvalidArchitecture, match="architecture of space 'toy-1-"):
        ToySpace(classes=4).from_json(arch.to_json())


def test_key_is_the_same_in_every_process():
    code = "from toy_space import ToySpace; print(ToySpace().largest().key, hash(ToySpace().largest().key) % 7)"
    keys = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[0]
        for seed in ("1", "2")
    ]
    assert keys == [ToySpace().largest().key] * 2


def test_architecture_is_a_value():
    arch = ToySpace().smallest()
    assert arch == ToySpace().smallest() and arch is not ToySpace().smallest()
    assert len({arch, ToySpace().smallest(), ToySpace().largest()}) == 2
    assert arch != arch.key
    assert repr(arch) == f"Architecture({arch.space}, {arch.key})"
    with pytest.raises(dataclasses.FrozenInstanceError):
        arch.space = "other"


@pytest.mark.parametrize("data", [{}, {"space": None}, {"space": ToySpace().id}, {"space": ToySpace().id, "choices": [1]}])
def test_json_that_is_no_architecture(data):
    with pytest.raises(InvalidArchitecture):
        ToySpace().from_json(data)


# -- conditions


def test_conditions_are_a_disjunction_of_conjunctions():
    choice = Choice("c", (1, 2), active_when=((("a", (1, 2)), ("b", (True,))), (("a", (3,)),)))
    assert Choice("c", (1, 2)).is_active({})
    expected = {(1, True): True, (2, True): True, (3, True): True, (1, False): False, (3, False): True, (4, True): False}
    assert {(a, b): choice.is_active({"a": a, "b": b}) for a, b in expected} == expected
    assert not choice.is_active({"b": True})
    assert choice.is_active({"a": 3})


def test_inactive_choice_satisfies_no_condition():
    chain = (Choice("a", (0, 1)), Choice("b", (0, 1), ((("a", (1,)),),)), Choice("c", (0, 1), ((("b", (0, 1)),),)))
    space = listed(*chain)
    assert dict(space.architecture({"a": 0, "b": 1, "c": 1}).choices) == {"a": 0}
    assert space.size() == 1 + 2 * 2


@pytest.mark.parametrize("seed", range(40))
def test_size_of_random_conditions_is_what_enumeration_finds(seed):
    rng = numpy_rng(seed, "conditions")
    choices: list[Choice] = []
    for i in range(7):
        options = tuple(range(int(rng.integers(1, 4))))
        clauses = []
        for _ in range(int(rng.integers(0, 3)) if choices else 0):
            parents = rng.choice(len(choices), size=min(len(choices), int(rng.integers(1, 3))), replace=False)
            some = [(choices[p], rng.random(len(choices[p].options)) < 0.6) for p in parents]
            clauses.append(tuple((c.name, tuple(o for o, k in zip(c.options, keep, strict=True) if k)) for c, keep in some))
        choices.append(Choice(f"c{i}", options, tuple(clauses)))
    space = listed(*choices)
    found = {space.architecture(values) for values in raw_assignments(space)}
    assert space.size() == len(found)
    assert len(np.unique(space.encode(list(found)), axis=0)) == len(found)
    for arch in found:
        assert space.mutate(arch, rng) in found
        assert set(space.neighbours(arch)) <= found


def test_size_of_a_large_space_is_exact():
    stages = []
    for s in range(5):
        kernels = (Choice(f"k{s}.{b}", (3, 5, 7), (((f"d{s}", tuple(range(b + 1, 5))),),)) for b in range(4))
        stages.append((Choice(f"d{s}", (2, 3, 4)), *kernels))
    space = listed(*(c for stage in stages for c in stage))
    assert space.size() == (3**2 + 3**3 + 3**4) ** 5  # Once-for-All, without its expansions


# -- drawing


def test_sampling_is_uniform_over_the_options():
    rng, n = numpy_rng(0, "uniform"), 6000
    space = listed(Choice("a", (1, 2, 3)), Choice("b", (1, 2), ((("a", (3,)),),)))
    counts = Counter(tuple(space.sample(rng).choices.values()) for _ in range(n))
    for drawn, probability in {(1,): 1 / 3, (2,): 1 / 3, (3, 1): 1 / 6, (3, 2): 1 / 6}.items():
        assert abs(counts[drawn] / n - probability) < 5 * (probability * (1 - probability) / n) ** 0.5


def test_mutation_always_changes_and_keeps_what_it_does_not_redraw():
    space, rng = ToySpace(), numpy_rng(0, "mutate")
    arch = space.largest()
    for _ in range(200):
        mutant = space.mutate(arch, rng, rate=0.0)
        assert mutant != arch
        both = set(arch.choices) & set(mutant.choices)
        assert sum(arch.choices[n] != mutant.choices[n] for n in both) == 1
    lone = listed(Choice("a", (1,)), Choice("b", ("x",)))
    assert lone.mutate(lone.smallest(), rng) == lone.smallest()


def test_mutation_at_full_rate_redraws_every_decision():
    space, rng = ToySpace(), numpy_rng(0, "mutate")
    arch = space.smallest()
    several = [c.name for c in space.choices if len(c.options) > 1 and c.name in arch.choices]
    for _ in range(20):
        mutant = space.mutate(arch, rng, rate=1.0)
        assert all(mutant.choices[n] != arch.choices[n] for n in several)


def test_crossover_of_equal_parents_is_the_parent():
    space, rng = ToySpace(), numpy_rng(0, "crossover")
    for _ in range(50):
        arch = space.sample(rng)
        assert space.crossover(arch, arch, rng) == arch


def test_encoding_is_the_index_from_one_and_zero_where_inactive():
    space = ToySpace()
    assert space.encode(space.smallest()).tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 1]
    assert space.encode(space.largest()).tolist() == [2, 2, 2, 2, 2, 2, 3, 2, 1]


def test_largest_and_smallest_are_architectures():
    assert isinstance(ToySpace().largest(), Architecture)
    assert dict(ToySpace().largest().choices)["ratio"] == 3
    assert "ratio" not in ToySpace().smallest().choices
