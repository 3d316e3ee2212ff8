"""Choice, Architecture, SearchSpace: which network is meant, as values.

An architecture holds exactly the decisions that exist in its network, so one network has one key.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from nas.errors import InvalidArchitecture

if TYPE_CHECKING:  # for annotations alone: this file must not import torch
    import torch.nn as nn

    from nas.plan import Plan, PlanBlock

Option = int | float | str | bool
Clause = tuple[tuple[str, tuple[Option, ...]], ...]


def short_hash(value: object) -> str:
    """Hash the canonical JSON of `value` to 12 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Choice:
    """One decision with ordered options.

    `active_when` is a disjunction of clauses, each a conjunction of (earlier choice, allowed options). The choice exists
    if any clause holds; an empty tuple means always. An inactive choice satisfies no condition.
    """

    name: str
    options: tuple[Option, ...]
    active_when: tuple[Clause, ...] = ()

    def is_active(self, values: Mapping[str, Option]) -> bool:
        """Tell whether this decision exists, given the values of the earlier ones."""
        if not self.active_when:
            return True
        return any(all(n in values and values[n] in allowed for n, allowed in clause) for clause in self.active_when)


@dataclass(frozen=True, eq=False)
class Architecture:
    """A point of a space: frozen, hashable, compared by its key. Build it with `SearchSpace.architecture`."""

    space: str
    choices: Mapping[str, Option]

    @cached_property
    def key(self) -> str:
        """Short hash of the canonical JSON: the name of this network everywhere."""
        return short_hash({"space": self.space, "choices": dict(self.choices)})

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.key == other.key

    def __repr__(self) -> str:
        return f"Architecture({self.space}, {self.key})"

    def to_json(self) -> dict[str, object]:
        """Plain data; `SearchSpace.from_json` reads it back."""
        return {"space": self.space, "choices": dict(self.choices)}


@dataclass(frozen=True)
class SearchSpace(ABC):
    """The networks that a supernet holds. A final subclass gives `name`, `version`, `choices`, `blocks` and `network`.

    Subclasses are frozen dataclasses whose fields are the settings (plain JSON values), so that a space can be written
    down and built again from `settings`.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    in_channels: int = 3
    resolutions: tuple[int, ...] = (32,)
    classes: int = 10

    @property
    @abstractmethod
    def choices(self) -> tuple[Choice, ...]:
        """All decisions, each after those that it depends on."""

    @property
    @abstractmethod
    def blocks(self) -> tuple[PlanBlock, ...]:
        """The parts of a plan, in order; each says which choices its layers depend on."""

    @abstractmethod
    def network(self, arch: Architecture) -> nn.Module:
        """Build the plain module of `arch`, (N, C, H, W) -> (N, classes), with PyTorch's default initialisation.

        Parameter names are those of `shared_network`, and each parameter is a leading (in space: centred) slice of
        the parameter with the same name there: this is what makes weights shareable.
        """

    def shared_network(self) -> nn.Module:
        """The module whose parameters all networks are slices of: the largest network, where that has all of them."""
        return self.network(self.largest())

    @cached_property
    def settings(self) -> dict[str, object]:
        """The fields by name; `from_settings` builds an equal space, also from their JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> Self:
        """Build the space again from `settings`, in which JSON may have turned tuples into lists."""
        return cls(**{n: _tuples(v) for n, v in settings.items()})  # type: ignore[arg-type]

    @cached_property
    def id(self) -> str:
        """Name, version and a hash of the settings: networks of different settings are different networks."""
        return f"{self.name}-{self.version}-{short_hash(self.settings)[:6]}"

    # -- building and reading architectures

    def architecture(self, values: Mapping[str, Option]) -> Architecture:
        """Canonicalize `values` (inactive decisions are dropped).

        Raises InvalidArchitecture if an active decision is missing or not among its options, or a name is unknown.
        """
        unknown = sorted(set(values) - set(self._by_name))
        if unknown:
            raise InvalidArchitecture(f"space {self.id} has no choice {unknown[0]!r}; it has {', '.join(self._by_name)}")
        kept: dict[str, Option] = {}
        for choice in self.choices:
            if not choice.is_active(kept):
                continue
            if choice.name not in values:
                raise InvalidArchitecture(f"choice {choice.name!r} is missing; options: {choice.options}")
            if values[choice.name] not in choice.options:
                raise InvalidArchitecture(f"{values[choice.name]!r} is no option of {choice.name!r}; options: {choice.options}")
            # the option itself, not what equals it: 1, 1.0 and True are one option but not one JSON text
            kept[choice.name] = choice.options[choice.options.index(values[choice.name])]
        return Architecture(self.id, kept)

    def from_json(self, data: Mapping[str, object]) -> Architecture:
        """Read what `Architecture.to_json` wrote. Raises InvalidArchitecture if it belongs to another space."""
        choices = data.get("choices")
        if data.get("space") != self.id or not isinstance(choices, Mapping):
            raise InvalidArchitecture(f"architecture of space {data.get('space')!r} given to space {self.id!r}")
        return self.architecture(choices)

    def _fill(self, pick: Mapping[str, Option], default: int) -> Architecture:
        """Take `pick` where it names a valid option, else the first (0) or last (-1) option."""
        values: dict[str, Option] = {}
        for choice in self.choices:
            if choice.is_active(values):
                wanted = pick.get(choice.name)
                values[choice.name] = wanted if wanted in choice.options and wanted is not None else choice.options[default]
        return Architecture(self.id, values)

    def smallest(self) -> Architecture:
        """The network with the first option everywhere."""
        return self._fill({}, 0)

    def largest(self) -> Architecture:
        """The network with the last option everywhere."""
        return self._fill({}, -1)

    # -- drawing

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw every active decision uniformly."""
        values: dict[str, Option] = {}
        for choice in self.choices:
            if choice.is_active(values):
                values[choice.name] = choice.options[int(rng.integers(len(choice.options)))]
        return Architecture(self.id, values)

    def mutate(self, arch: Architecture, rng: np.random.Generator, rate: float = 0.1) -> Architecture:
        """Redraw each decision with probability `rate`, at least one; newly active decisions are drawn uniformly.

        The result differs from `arch` unless no decision has a second option.
        """
        several = [n for n in arch.choices if len(self._by_name[n].options) > 1]
        forced = several[int(rng.integers(len(several)))] if several else None
        values: dict[str, Option] = {}
        for choice in self.choices:
            if not choice.is_active(values):
                continue
            old = arch.choices.get(choice.name)
            redraw = old is None or choice.name == forced or rng.random() < rate
            options = [o for o in choice.options if o != old] or list(choice.options)
            values[choice.name] = options[int(rng.integers(len(options)))] if redraw or old is None else old
        return Architecture(self.id, values)

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Take each decision from `a` or `b` with equal odds (uniform crossover), or from the one that has it."""
        values: dict[str, Option] = {}
        for choice in self.choices:
            if not choice.is_active(values):
                continue
            having = [p.choices[choice.name] for p in (a, b) if choice.name in p.choices] or list(choice.options)
            values[choice.name] = having[int(rng.integers(len(having)))]
        return Architecture(self.id, values)

    def neighbours(self, arch: Architecture) -> Iterator[Architecture]:
        """All networks that differ in one decision; decisions that become active take their first option."""
        for name, value in arch.choices.items():
            for option in self._by_name[name].options:
                if option != value:
                    yield self._fill({**arch.choices, name: option}, 0)

    # -- numbers

    @cached_property
    def _by_name(self) -> dict[str, Choice]:
        return {c.name: c for c in self.choices}

    def encode(self, archs: list[Architecture] | Architecture) -> np.ndarray:
        """Option indices counted from 1, 0 where inactive: shape (choices,) for one, (n, choices) for a list."""
        if isinstance(archs, Architecture):
            return self.encode([archs])[0]
        index = self._option_index
        rows = [[lookup[a.choices.get(name)] for name, lookup in index] for a in archs]
        return np.array(rows, dtype=np.int64).reshape(len(archs), len(index))

    @cached_property
    def _option_index(self) -> list[tuple[str, dict[Option | None, int]]]:
        return [(c.name, {None: 0, **{o: i + 1 for i, o in enumerate(c.options)}}) for c in self.choices]

    def size(self) -> int:
        """Count the architectures exactly.

        Decisions that nothing depends on only multiply; the others are enumerated within each connected group.
        """
        total = 1
        for group in self._groups():
            steering = {n for c in group for clause in c.active_when for n, _ in clause}
            total *= _count(group, steering, {})
        return total

    def _groups(self) -> list[list[Choice]]:
        """Choices that are linked by conditions, together and in order."""
        groups: list[list[Choice]] = []
        for choice in self.choices:
            needs = {n for clause in choice.active_when for n, _ in clause}
            linked = [g for g in groups if any(c.name in needs for c in g)]
            groups = [g for g in groups if g not in linked]
            groups.append(sorted([c for g in linked for c in g] + [choice], key=self.choices.index))
        return groups

    def plan(self, arch: Architecture) -> Plan:
        """The plain layers that `arch` stands for."""
        from nas.plan import assemble  # plan.py needs nothing of ours; imported here to keep the two files apart

        return assemble(self.blocks, arch.choices)


def _tuples(value: object) -> object:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _count(group: list[Choice], steering: set[str], values: dict[str, Option]) -> int:
    """Count the assignments of `group`, branching on the decisions that steer others."""
    position = next((i for i, c in enumerate(group) if c.name in steering), len(group))
    free = prod(len(c.options) for c in group[:position] if c.is_active(values))
    if position == len(group):
        return free
    choice, rest = group[position], group[position + 1 :]
    if not choice.is_active(values):
        return free * _count(rest, steering, values)
    return free * sum(_count(rest, steering, {**values, choice.name: o}) for o in choice.options)
