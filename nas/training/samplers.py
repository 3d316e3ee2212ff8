"""Which networks a step of a supernet's training takes: plain functions that make a `Sampler`, by name in SAMPLERS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas.architecture import Architecture, SearchSpace
from nas.seeding import numpy_rng

# step -> networks, the largest one first
Sampler = Callable[[int], tuple[Architecture, ...]]
SANDWICH, PAIR, BUDGET = "sandwich", "pair", "budget"
# of the budget: the networks that `near_budget` looks for, in so many draws
NEAR, DRAWS = (0.5, 1.05), 10
# steps whose costs are averaged
AVERAGED = 32


@dataclass(frozen=True)
class Sampling:
    """What samplers draw from; `share` is what a network costs, in parts of what the budgets allow (0 without a budget)."""

    space: SearchSpace
    seed: int
    share: Callable[[Architecture], float]

    def draw(self, step: int, index: int) -> Architecture:
        """A network of uniform decisions, a function of (seed, step, index)."""
        return self.space.sample(numpy_rng(self.seed, "sampler", step, index))


def sandwich(sampling: Sampling) -> Sampler:
    """The largest network, the smallest, and two random ones: the sandwich rule (Yu and Huang 2019)."""
    largest, smallest = sampling.space.largest(), sampling.space.smallest()
    return lambda step: (largest, smallest, sampling.draw(step, 0), sampling.draw(step, 1))


def pair(sampling: Sampling) -> Sampler:
    """The largest network and a random one."""
    largest = sampling.space.largest()
    return lambda step: (largest, sampling.draw(step, 0))


def near_budget(sampling: Sampling) -> Sampler:
    """The largest network and a random one that costs about what the budgets allow: what is trained is what is searched."""
    largest, (low, high) = sampling.space.largest(), NEAR

    def networks(step: int) -> tuple[Architecture, ...]:
        nearest, distance = largest, float("inf")
        for index in range(DRAWS):
            arch = sampling.draw(step, index)
            share = sampling.share(arch)
            off = max(low - share, share - high, 0.0)
            if index == 0 or off < distance:
                nearest, distance = arch, off
            if not off:
                break
        return largest, nearest

    return networks


SAMPLERS: dict[str, Callable[[Sampling], Sampler]] = {SANDWICH: sandwich, PAIR: pair, BUDGET: near_budget}


def step_cost(sampler: Sampler, macs: Callable[[Architecture], float]) -> float:
    """The mean cost of a step, in parts of what the largest network costs; `macs` are the multiply-adds of a network."""
    drawn = [sampler(step) for step in range(AVERAGED)]
    return sum(macs(arch) for networks in drawn for arch in networks) / (AVERAGED * macs(drawn[0][0]))
