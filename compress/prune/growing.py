"""Networks that grow: units and residual blocks of a small seed come and go during one training (Yuan, Savarese, Maire 2021).

Every unit and every block has a mask, sigmoid(beta * s) of a parameter s that is learned with the weights. As beta rises, masks
turn into zeros and ones. What the network would cost is a smooth function of the masks, so a limit on it is a loss. Unlike in
the paper, masks are not sampled, and all units run in all steps: a step takes as long as one of the whole network.

subject = analysed(module, example)
network = Growing(subject, residual_blocks(subject.module, example), Growth(steps))
train(network, growing(network, classification, limit_share=0.5), ...)
so_far, ranking, keep = result(network, budgets, Recipe())
further(so_far, ranking, keep, calibration).module
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.prune.attention import prepare
from compress.prune.depth import without
from compress.prune.fitting import settle
from compress.prune.groups import IN, OUT, Group
from compress.prune.history import History
from compress.prune.pipeline import Pruned, Ranking, Recipe, Subject, analysed
from compress.prune.problem import Keep, Problem
from compress.prune.slices import Slice, assign, called, readers, slices
from compress.prune.widths import WidthModel
from nas.budget import Budget
from nas.cost.counting import MACS, macs
from nas.errors import InvalidSetting
from nas.plan import Plan
from nas.training.loop import Objective
from nas.training.objectives import Network

# where s starts: what is not of the seed is so near to 0 that it can grow
SEED, REST = 0.2, -0.05


@dataclass(frozen=True)
class Growth:
    """From which share of its units and blocks a network starts, and in how many steps its masks become 0 or 1.

    beta rises from 1 to `beta`, exponentially, and stays there. Raises InvalidSetting for a number out of its range.
    """

    steps: int
    seed_share: float = 0.25
    beta: float = 100.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.seed_share <= 1 or not self.beta > 1:
            raise InvalidSetting(
                f"steps {self.steps}, seed_share {self.seed_share} and beta {self.beta} given; "
                "use 1 step or more, a share in (0, 1], and a beta above 1"
            )


class Growing(nn.Module):
    """A copy of the whole network of `subject`, and a parameter for each unit of its groups and for each of its `blocks`.

    `blocks` are as compress.prune.depth.residual_blocks names them. The parameters `units` are one vector (width,) a group, and
    the parameter `blocks` is one vector (blocks,).
    """

    owners: Tensor

    def __init__(self, subject: Subject, blocks: Sequence[str], growth: Growth) -> None:
        super().__init__()
        self.subject, self.names, self.growth = subject, tuple(blocks), growth
        self.network = prepare(subject.module)
        self.units = nn.ParameterList(_seed(group.width, growth.seed_share) for group in subject.groups)
        self.blocks = nn.Parameter(_seed(len(self.names), growth.seed_share))
        owners = _owners(self.network, subject.groups)
        self._read, self._sizes = tuple(owners), [len(units) for units in owners.values()]
        self.register_buffer("owners", torch.cat(list(owners.values())), persistent=False)
        self._share = ExpectedShare(subject.widths.plan, subject.groups, self.names)
        self.to(subject.example.device)

    def forward(self, images: Tensor, step: int) -> Tensor:
        """Run the network with the masks of a step: images (N, C, H, W) -> what the network gives.

        What reads a unit is scaled by its mask, and a block f of mask m gives m f(x) + (1 - m) x.
        """
        units, blocks = self.masks(step)
        with _mixed(self.network, dict(zip(self.names, blocks, strict=True))):
            return called(self.network, self._scaled(units), images)

    def masks(self, step: int) -> tuple[Tensor, Tensor]:
        """Masks in (0, 1) of all units, group after group, (units,), and of the blocks, (blocks,)."""
        beta = self.growth.beta ** min(step / self.growth.steps, 1)
        return torch.sigmoid(beta * torch.cat(list(self.units))), torch.sigmoid(beta * self.blocks)

    def expected_share(self, step: int) -> Tensor:
        """Multiply-adds as a share of those of the whole network, a differentiable scalar; see ExpectedShare."""
        return self._share(*self.masks(step))

    @property
    def removed(self) -> tuple[str, ...]:
        """The blocks whose masks are below a half."""
        return tuple(name for name, s in zip(self.names, self.blocks.tolist(), strict=True) if s < 0)

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """The parameters of the units by group, (width,) each: positive where a mask is above a half."""
        values = (s.detach().double().cpu().numpy() for s in self.units)
        return {group.name: s for group, s in zip(self.subject.groups, values, strict=True)}

    def folded(self) -> nn.Module:
        """A copy of the network whose weights have the last masks of the units in them. Blocks are whole."""
        network = prepare(self.network)
        assign(network, self._scaled(self.masks(self.growth.steps)[0]))
        return network

    def _scaled(self, units: Tensor) -> dict[str, Tensor]:
        """Parameters that read units, by name, times the masks of those."""
        scales = torch.cat([units, units.new_ones(1)])[self.owners].split(self._sizes)
        found = {}
        for part, scale in zip(self._read, scales, strict=True):
            weight = self.network.get_parameter(part.name)
            found[part.name] = weight * scale.view([-1 if dim == part.dim else 1 for dim in range(weight.dim())])
        return found


class ExpectedShare(nn.Module):
    """Multiply-adds of a network as a share of those of `plan`: those of nas.cost.counting where all masks are 0 or 1.

    A layer adds what it has in `plan`, times the share of its inputs, times that of its outputs, times the mask of its
    block: of the one that its name begins with. Products that are neither convolution nor linear layer stay as they are.
    """

    work: Tensor
    read: Tensor
    written: Tensor
    within: Tensor

    def __init__(self, plan: Plan, groups: Sequence[Group], blocks: Sequence[str]) -> None:
        super().__init__()
        layers = [layer for layer in plan.layers if layer.op in MACS and macs(layer)]
        work = torch.tensor([macs(layer) for layer in layers], dtype=torch.float64)
        inside = [[f"{layer.name}.".startswith(f"{block}.") for block in blocks] for layer in layers]
        tables = {side: torch.zeros(len(layers), sum(group.width for group in groups)) for side in (IN, OUT)}
        widths, rows, start = WidthModel(plan, tuple(groups)), {layer.name: row for row, layer in enumerate(layers)}, 0
        for group in groups:
            for member in group.members:
                for layer, side in widths.layers_of(replace(group, members=(member,))):
                    if layer.name in rows:
                        owned = torch.tensor([len(unit) for unit in member.units])
                        channels = layer.in_channels if side == IN else layer.out_channels
                        tables[side][rows[layer.name], start : start + group.width] += owned / channels
            start += group.width
        self.register_buffer("work", (work / work.sum()).float(), persistent=False)
        self.register_buffer("read", tables[IN], persistent=False)
        self.register_buffer("written", tables[OUT], persistent=False)
        self.register_buffer("within", torch.tensor(inside).view(len(layers), -1).float(), persistent=False)

    def forward(self, units: Tensor, blocks: Tensor) -> Tensor:
        """Masks of all units (units,), group after group, and of blocks (blocks,) -> a scalar."""
        return (self.work * _left(self.read, units) * _left(self.written, units) * _left(self.within, blocks)).sum()


def growing(network: Growing, classify: Callable[[Network], Objective], limit_share: float, weight: float = 10.0) -> Objective:
    """The losses of `classify`, such as nas.training.objectives.classification, and one for too many multiply-adds.

    That is the expected share above `limit_share`, relative to it, times `weight`, which rises linearly with the masks. Raises
    InvalidSetting for numbers out of range.
    """
    if not 0 < limit_share <= 1 or not weight > 0:
        raise InvalidSetting(f"limit_share {limit_share} and weight {weight} given; use a share in (0, 1] and a weight above 0")

    def losses(images: Tensor, targets: Tensor, step: int) -> Iterator[Tensor]:
        yield from classify(partial(network, step=step))(images, targets, step)
        excess = F.relu(network.expected_share(step) - limit_share) / limit_share
        yield weight * min(step / network.growth.steps, 1) * excess

    return losses


def result(network: Growing, budgets: Sequence[Budget], recipe: Recipe) -> tuple[Pruned, Ranking, Keep]:
    """What compress.prune.pipeline.further cuts: the network without the blocks that are off, scores, and the units to keep.

    Those are the units that are on, but for what the absolute `budgets` need, or leave. Of `recipe`, `round_to` and `least`
    matter. Raises InfeasibleBudget, InvalidBudget.
    """
    subject = _shorter(network)
    scores = {group.name: network.scores[group.name] for group in subject.groups}
    problem = Problem(subject.groups, scores, subject.widths, tuple(budgets), recipe.round_to, recipe.least, recipe.exact)
    keep = settle(problem, {name: problem.nearest(name, int((values > 0).sum())) for name, values in scores.items()})
    if not problem.fits(keep):  # what breaks no budget now is nothing to complain of
        replace(problem, budgets=tuple(b for b in budgets if b.check(subject.cost))).check()
    return Pruned(subject, History(network.removed), problem.whole), Ranking(scores), keep


def _shorter(network: Growing) -> Subject:
    """The network without the blocks that are off, and those of its groups that are left."""
    whole, folded = network.subject, network.folded().eval()
    if not network.removed:
        return replace(whole, module=folded)
    found = analysed(without(folded, network.removed), whole.example, whole.widths.latency)
    return replace(found, groups=tuple(group for group in found.groups if group.name in network.scores))


def _seed(number: int, share: float) -> Tensor:
    """Where the parameters of masks start: those of the seed are spread evenly, and there is one at least."""
    seeds = max(1, round(share * number))
    return torch.tensor([SEED if place * seeds % number < seeds else REST for place in range(number)])


def _owners(module: nn.Module, groups: Sequence[Group]) -> dict[Slice, Tensor]:
    """For what reads units, the number of the unit that each channel belongs to: the number of units where it is none."""
    total = sum(group.width for group in groups)
    found: dict[Slice, Tensor] = {}
    start = 0
    for group in groups:
        for member in readers(group):
            for part in slices(module, member):
                owners = found.setdefault(part, torch.full((module.get_parameter(part.name).shape[part.dim],), total))
                for unit, channels in enumerate(member.units, start):
                    owners[list(channels)] = unit
        start += group.width
    return found


def _left(table: Tensor, masks: Tensor) -> Tensor:
    """What is left of each row. No matrix product: autocast would round it to less than a budget is precise."""
    return 1 - (table * (1 - masks)).sum(1)


@contextmanager
def _mixed(module: nn.Module, masks: dict[str, Tensor]) -> Iterator[None]:
    """Mix the outputs of blocks with their inputs."""

    def mixing(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        return lambda block, inputs, output: mask * output + (1 - mask) * inputs[0]

    hooks = [module.get_submodule(name).register_forward_hook(mixing(mask)) for name, mask in masks.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
