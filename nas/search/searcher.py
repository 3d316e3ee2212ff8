"""Searcher: the protocol between a search strategy and the loop that runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nas.architecture import Architecture
from nas.search.problem import SearchProblem
from nas.seeding import numpy_rng
from nas.trial import Trial


class Searcher(Protocol):
    """Proposes architectures and learns from trials; sees values only.

    Randomness comes from (seed, ask number) alone and state from the asks and tells in their order, so that a fresh
    searcher that is given the same asks and tells goes on like the first one. No architecture is proposed twice.
    """

    def ask(self, n: int) -> list[Architecture]:
        """Propose up to `n` architectures; fewer once the space has no other that keeps the budget."""

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from trials, in order. They need not stem from `ask`."""

    def follow(self, trial: Trial) -> None:
        """Go on as after `ask(1)` gave the network of `trial` and `tell` that trial, as an earlier process found it."""


class FirstThen:
    """Proposes given architectures first, then what another searcher does, which learns of the first ones, too."""

    def __init__(self, searcher: Searcher, first: Sequence[Architecture]) -> None:
        self.searcher, self._first = searcher, list(first)

    def ask(self, n: int) -> list[Architecture]:
        """See Searcher.ask."""
        now, self._first = self._first[:n], self._first[n:]
        return now + (self.searcher.ask(n - len(now)) if len(now) < n else [])

    def tell(self, trials: Sequence[Trial]) -> None:
        """See Searcher.tell."""
        self.searcher.tell(trials)

    def follow(self, trial: Trial) -> None:
        """See Searcher.follow."""
        if self._first:
            self._first = self._first[1:]
            self.searcher.tell([trial])
        else:
            self.searcher.follow(trial)


class SequentialSearcher(ABC):
    """Base of searchers that propose one architecture at a time: numbers the asks and remembers what was seen."""

    def __init__(self, problem: SearchProblem) -> None:
        self.problem = problem
        self.seen: set[Architecture] = set()
        self._asked = 0

    def ask(self, n: int) -> list[Architecture]:
        """See Searcher.ask; `ask(2)` is the same as `ask(1)` twice with no tell between."""
        proposals: list[Architecture] = []
        for _ in range(n):
            arch = self.propose(numpy_rng(self.problem.seed, "ask", self._asked))
            self._asked += 1
            if arch is None:
                break
            self.seen.add(arch)
            proposals.append(arch)
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """See Searcher.tell."""
        self.seen.update(t.architecture for t in trials)
        self.learn(trials)

    def follow(self, trial: Trial) -> None:
        """See Searcher.follow; the network is not searched for again."""
        self.proposed(trial.architecture)
        self._asked += 1
        self.tell([trial])

    def proposed(self, arch: Architecture) -> None:  # noqa: B027 - most keep nothing of what they propose
        """Change what `propose` changes when it gives `arch`."""

    @abstractmethod
    def propose(self, rng: np.random.Generator) -> Architecture | None:
        """Find an architecture that is not in `seen` and keeps the budget; None if there is no other."""

    @abstractmethod
    def learn(self, trials: Sequence[Trial]) -> None:
        """Take in new trials."""
