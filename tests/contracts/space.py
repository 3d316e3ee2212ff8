"""What every search space promises.

A test class inherits `SpaceContract` and gives a fixture `space`. Small spaces are enumerated, large ones are sampled.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
import torch

from nas.architecture import Architecture, SearchSpace
from nas.errors import InvalidArchitecture
from nas.plan import INPUT, Layer, Plan
from nas.seeding import numpy_rng

SMALL = 20_000
SAMPLES = 30
NETWORKS = 5


def raw_assignments(space: SearchSpace) -> Iterator[dict]:
    """Every combination of all options, also of decisions that do not exist."""
    names = [c.name for c in space.choices]
    return (dict(zip(names, values, strict=True)) for values in product(*(c.options for c in space.choices)))


def samples(space: SearchSpace, count: int = SAMPLES) -> list[Architecture]:
    """The smallest, the largest and random networks."""
    rng = numpy_rng(0, "samples")
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(count))]


def assert_valid(space: SearchSpace, arch: Architecture) -> None:
    """Building it again from its own choices gives the same network, in the same order."""
    again = space.architecture(arch.choices)
    assert again == arch
    assert list(again.choices.items()) == list(arch.choices.items())
    assert [type(v) for v in again.choices.values()] == [type(v) for v in arch.choices.values()]


class SpaceContract:
    """The tests; names, conditions, architectures, drawing, encoding, plans, networks."""

    def test_choices_are_well_formed(self, space):
        seen = {}
        for choice in space.choices:
            assert choice.name not in seen
            assert len(choice.options) > 0
            assert len(set(choice.options)) == len(choice.options), "1, 1.0 and True are equal"
            for clause in choice.active_when:
                assert clause, "an empty clause always holds"
                for name, allowed in clause:
                    assert name in seen, f"{choice.name} depends on {name}, which is no earlier choice"
                    assert allowed and set(allowed) <= set(seen[name])
            seen[choice.name] = choice.options

    def test_settings_build_an_equal_space(self, space):
        again = type(space).from_settings(json.loads(json.dumps(space.settings)))
        assert again == space
        assert again.id == space.id
        assert again.largest() == space.largest()
        assert space.id.startswith(f"{space.name}-{space.version}-")

    def test_a_used_space_can_be_sent_to_a_process(self, space):
        plan, size = space.plan(space.largest()), space.size()
        again = pickle.loads(pickle.dumps(space))
        assert again == space
        assert (again.plan(again.largest()), again.size()) == (plan, size)

    def test_number_of_keys_is_size(self, space):
        if prod(len(c.options) for c in space.choices) > SMALL:
            pytest.skip("too large to enumerate")
        found = {space.architecture(values) for values in raw_assignments(space)}
        assert len({a.key for a in found}) == len(found) == space.size()
        rows = space.encode(list(found))
        assert len(np.unique(rows, axis=0)) == len(found), "the encoding is injective"

    def test_size_is_at_least_what_is_seen(self, space):
        assert len(set(samples(space))) <= space.size() <= prod(len(c.options) for c in space.choices)

    def test_drawn_architectures_are_valid(self, space):
        rng = numpy_rng(1, "draw")
        archs = samples(space)
        for a, b in pairwise(archs):
            mutant, child = space.mutate(a, rng), space.crossover(a, b, rng)
            for arch in (a, mutant, child):
                assert_valid(space, arch)
            for name, value in child.choices.items():
                parents = [p.choices[name] for p in (a, b) if name in p.choices]
                assert value in parents or not parents
            assert mutant != a or space.size() == 1

    def test_extremes_take_the_first_and_the_last_options(self, space):
        options = {c.name: c.options for c in space.choices}
        assert all(v == options[n][0] for n, v in space.smallest().choices.items())
        assert all(v == options[n][-1] for n, v in space.largest().choices.items())
        assert_valid(space, space.smallest())
        assert_valid(space, space.largest())

    def test_drawing_is_a_function_of_the_generator(self, space):
        def draw() -> list[Architecture]:
            rng = numpy_rng(2, "draw")
            first, second = space.sample(rng), space.sample(rng)
            return [first, second, space.mutate(first, rng, 0.5), space.crossover(first, second, rng)]

        assert draw() == draw()

    def test_every_option_is_drawn(self, space):
        rng = numpy_rng(3, "draw")
        seen = {item for _ in range(2000) for item in space.sample(rng).choices.items()}
        always = [c for c in space.choices if not c.active_when]
        assert {(c.name, o) for c in always for o in c.options} <= seen

    def test_neighbours_differ_in_one_decision(self, space):
        for arch in samples(space, 3):
            options = {c.name: c.options for c in space.choices}
            neighbours = list(space.neighbours(arch))
            assert len(neighbours) == sum(len(options[n]) - 1 for n in arch.choices)
            assert len({arch, *neighbours}) == len(neighbours) + 1
            for neighbour in neighbours:
                assert_valid(space, neighbour)
                both = set(arch.choices) & set(neighbour.choices)
                assert sum(arch.choices[n] != neighbour.choices[n] for n in both) == 1
                new = set(neighbour.choices) - set(arch.choices)
                assert all(neighbour.choices[n] == options[n][0] for n in new)

    def test_json_and_pickle_round_trip(self, space):
        for arch in samples(space):
            again = space.from_json(json.loads(json.dumps(arch.to_json())))
            assert_valid(space, again)
            assert (again, again.key, hash(again)) == (arch, arch.key, hash(arch))
            assert again.to_json() == arch.to_json()
            assert pickle.loads(pickle.dumps(arch)) == arch  # executors send architectures to processes

    def test_key_depends_on_values_alone(self, space):
        arch = space.largest()
        backwards = space.architecture(dict(reversed(arch.choices.items())))
        assert backwards.key == arch.key
        assert arch.key != space.smallest().key or space.size() == 1

    def test_wrong_values_are_refused(self, space):
        values = dict(space.largest().choices)
        name = space.choices[0].name
        with pytest.raises(InvalidArchitecture, match="no choice 'colour'"):
            space.architecture({**values, "colour": 1})
        with pytest.raises(InvalidArchitecture, match=f"'plaid' is no option of '{name}'; options: "):
            space.architecture({**values, name: "plaid"})
        with pytest.raises(InvalidArchitecture, match=f"choice '{name}' is missing"):
            space.architecture({n: v for n, v in values.items() if n != name})
        with pytest.raises(InvalidArchitecture, match="architecture of space 'other-1-abcdef' given to space"):
            space.from_json({"space": "other-1-abcdef", "choices": values})

    def test_encoding_tells_architectures_apart(self, space):
        archs = list(dict.fromkeys(samples(space)))
        rows = space.encode(archs)
        assert rows.shape == (len(archs), len(space.choices)) and rows.dtype == np.int64
        assert len(np.unique(rows, axis=0)) == len(archs)
        for arch, row in zip(archs, rows, strict=True):
            assert np.array_equal(space.encode(arch), row)
            decoded = {c.name: c.options[i - 1] for c, i in zip(space.choices, row, strict=True) if i}
            assert decoded == dict(arch.choices)
        assert space.encode([]).shape == (0, len(space.choices))

    def test_plans_are_connected(self, space):
        for arch in samples(space):
            plan = space.plan(arch)
            assert plan.input_channels == space.in_channels
            assert plan.layers[-1].out_channels == space.classes
            assert_connected(plan)

    def test_one_plan_one_key(self, space):
        for arch in samples(space, 3):
            archs = [arch, *space.neighbours(arch)]
            plans: dict[Plan, Architecture] = {}
            for other in archs:
                twin = plans.setdefault(space.plan(other), other)  # by name: names say which weights are shared
                differing = {n for n in {*twin.choices, *other.choices} if twin.choices.get(n) != other.choices.get(n)}
                assert twin == other, f"two keys for one network: {sorted(differing)} make no difference"

    def test_plan_blocks_depend_on_what_they_say(self, space):
        names = {c.name for c in space.choices}
        assert len({b.name for b in space.blocks}) == len(space.blocks)
        assert all(set(b.depends_on) <= names for b in space.blocks)

    def test_networks_are_slices_of_the_largest(self, space):
        with torch.device("meta"):
            largest = dict(space.shared_network().named_parameters())
            for arch in samples(space, NETWORKS):
                for name, parameter in space.network(arch).named_parameters():
                    assert name in largest, f"{name} of {dict(arch.choices)} is not in the largest network"
                    assert parameter.ndim == largest[name].ndim
                    assert all(n <= m for n, m in zip(parameter.shape, largest[name].shape, strict=True))
                    assert all((m - n) % 2 == 0 for n, m in zip(parameter.shape[2:], largest[name].shape[2:], strict=True))

    def test_networks_have_the_shapes_of_their_plans(self, space):
        for arch in samples(space, NETWORKS):
            plan = space.plan(arch)
            with torch.device("meta"):
                network = space.network(arch).eval()
                logits = network(torch.empty(2, space.in_channels, *plan.input_size))
            assert logits.shape == (2, space.classes)
            convs = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
            layers = [layer for layer in plan.layers if layer.op == "conv"]
            assert sorted(map(conv_shape, convs)) == sorted(map(layer_shape, layers))


def conv_shape(conv: torch.nn.Conv2d) -> tuple:
    """What a convolution and its layer have in common."""
    return conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.groups, conv.bias is not None


def layer_shape(layer: Layer) -> tuple:
    """See `conv_shape`."""
    return layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.groups, layer.bias


def assert_connected(plan: Plan) -> None:
    """Layers read what is there, in the shape in which it was put out, and nothing is put out in vain."""
    made = {INPUT: (plan.input_channels, plan.input_size)}
    unread = set()
    for layer in plan.layers:
        assert layer.name not in made
        assert layer.inputs and set(layer.inputs) <= set(made)
        assert layer.in_channels % layer.groups == 0 and layer.out_channels % layer.groups == 0
        shapes = [made[n] for n in layer.inputs]
        if len(shapes) == 1:
            assert shapes[0] == (layer.in_channels, layer.in_size)
        elif layer.op == "add":
            assert set(shapes) == {(layer.out_channels, layer.out_size)}
        made[layer.name] = (layer.out_channels, layer.out_size)
        unread = (unread - set(layer.inputs)) | {layer.name}
    assert unread == {plan.layers[-1].name}
