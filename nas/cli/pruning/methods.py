"""The methods of `nas prune`: how a network is made for an aim, and how it is trained afterwards. One class a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch.nn as nn

from compress.prune.attention import prepare
from compress.prune.depth import residual_blocks
from compress.prune.growing import Growing, Growth, growing, result
from compress.prune.history import History
from compress.prune.pipeline import Pruned, example_of, further
from compress.prune.sparse_training import ACTIVATIONS, Ramp, activated, finish, masked
from compress.prune.unstructured import check_reachable, compressed_bytes
from nas.budget import Metric
from nas.cli.existing import training_of
from nas.cli.job import LEARNING_RATES
from nas.cli.progress import log
from nas.cli.pruning.clock import SideBySide
from nas.cli.pruning.cutting import Workshop, absolute_budgets, cut_to
from nas.cli.pruning.job import Aim, PruneJob, aims_of
from nas.cli.pruning.settings import PruneSettings
from nas.cli.stages import Course, fit
from nas.errors import InvalidBudget, InvalidSetting, not_known
from nas.rundir import RunDir
from nas.training.calibration import recalibrate
from nas.training.loop import Checkpoints, Objective, steps_per_epoch
from nas.training.objectives import classification


@dataclass(frozen=True)
class Made:
    """A network before its fine-tuning, its time beside the original's, and what tells it from others of the run."""

    pruned: Pruned
    times: SideBySide
    choices: Mapping[str, int | float | str | bool]
    source: Mapping[str, Any]


class Method(Protocol):
    """How a network is made for an aim, and trained."""

    @property
    def follows_features(self) -> bool:
        """Whether the fine-tuning draws features to the original's."""

    def check(self, settings: PruneSettings) -> None:
        """Raise InvalidSetting or InvalidBudget for settings that do not go together."""

    def make(self, workshop: Workshop, run: RunDir, aim: Aim) -> Made:
        """Make the network of an aim."""

    def student(self, job: PruneJob, made: nn.Module) -> nn.Module:
        """What the fine-tuning starts from: `made`, as it was stored, or something else."""

    def objective(self, job: PruneJob, student: nn.Module, plain: Objective) -> Objective:
        """What the fine-tuning minimizes."""

    def finish(self, job: PruneJob, student: nn.Module) -> None:
        """What is left to do with the trained network, in place."""


class Cut:
    """Channels, and with --depth blocks, are cut from the trained network."""

    follows_features = True

    def check(self, settings: PruneSettings) -> None:
        """All settings go together."""

    def make(self, workshop: Workshop, run: RunDir, aim: Aim) -> Made:
        """Cut to the budgets."""
        found, times = cut_to(workshop, aim)
        return Made(found, times, _choices(found), workshop.job.original.source)

    def student(self, job: PruneJob, made: nn.Module) -> nn.Module:
        """The network as it was cut."""
        return made

    def objective(self, job: PruneJob, student: nn.Module, plain: Objective) -> Objective:
        """Distillation, as it is."""
        return plain

    def finish(self, job: PruneJob, student: nn.Module) -> None:
        """Nothing is left."""


class Grow(Cut):
    """A small seed of the network grows under the budget (structured continuous sparsification); then it is fine-tuned."""

    follows_features = False  # it was trained by itself for long

    def check(self, settings: PruneSettings) -> None:
        """Growing is a training, and knows one kind of cost."""
        if settings.data is None:
            raise InvalidSetting("--method grow trains the network and needs images; give --data")
        for aim in aims_of(settings):
            if [budget.metric for budget in aim.budgets] != ["macs"]:
                raise InvalidBudget(f"budget {aim.text!r}: --method grow wants one on multiply-adds, like 50% or 60MFLOPs")

    def make(self, workshop: Workshop, run: RunDir, aim: Aim) -> Made:
        """Train masks of units and blocks with the weights, and cut what is off."""
        job, subject = workshop.job, workshop.subject
        assert job.data is not None
        budgets = absolute_budgets(workshop, aim.budgets)
        config = training_of(job, GROW_LR * LEARNING_RATES[job.settings.optimizer])
        config = replace(config, epochs=job.settings.grow_epochs)
        growth = Growth(config.epochs * steps_per_epoch(job.data, config))
        network = Growing(subject, residual_blocks(subject.module, subject.example), growth).to(job.device)
        share = budgets[0].limit / subject.cost.metrics["macs"].value
        objective = growing(network, lambda net: classification(net, job.settings.smoothing), share)
        name = f"grow-{_plain(aim.text)}"
        # labels alone teach it
        course = Course(job.data, replace(job.augmentation, mixup=job.settings.mixup or 0.0), config)
        fit(f"growing to {aim.text}", network, objective, course, Checkpoints(run, name))
        found = further(*result(network, budgets, job.recipe), workshop.calibration)
        log(
            f"grown: {len(found.history.blocks)} blocks stayed off, {found.subject.cost.metrics['macs'].value / 1e6:.4g} MFLOPs"
        )
        times = workshop.clock.side_by_side(found.module)
        return Made(found, times, {**_choices(found), "method": "grow"}, job.original.source)


class Sparse(Cut):
    """Single weights are zero, by magnitude: anywhere, or N of each M; a longer training with a cubic ramp."""

    follows_features = False  # --activation computes other ones

    def check(self, settings: PruneSettings) -> None:
        """A sparsity is what is aimed at."""
        if settings.sparsity is None or settings.budget or settings.sweep:
            raise InvalidSetting(
                "--method sparse wants --sparsity, such as 0.8, and no --budget: zeros cost what all weights cost"
            )
        check_reachable(settings.sparsity, settings.pattern)
        if settings.activation is not None and settings.activation not in ACTIVATIONS:
            raise InvalidSetting(f"--activation {not_known(settings.activation, ACTIVATIONS)}")

    def make(self, workshop: Workshop, run: RunDir, aim: Aim) -> Made:
        """Set the smallest weights to zero at once: what the training then does better, over its ramp."""
        job, settings = workshop.job, workshop.job.settings
        module = dense_of(job)
        finish(module, ramp_of(job))
        if workshop.calibration.norms:
            recalibrate(module, workshop.calibration.norms)
        log("zeros save no time in dense runtimes: the times are of the same operations")
        assert settings.sparsity is not None
        choices: dict[str, int | float | str | bool] = {"sparsity": settings.sparsity}
        choices |= {"pattern": settings.pattern, "activation": settings.activation or "as it is"}
        found = Pruned(replace(workshop.subject, module=module), History(), {})
        source = {**job.original.source, "activation": settings.activation}
        return Made(found, workshop.clock.side_by_side(module), choices, source)

    def student(self, job: PruneJob, made: nn.Module) -> nn.Module:
        """The original, from which weights go one after the other."""
        return dense_of(job)

    def objective(self, job: PruneJob, student: nn.Module, plain: Objective) -> Objective:
        """Distillation with masks before each step."""
        return masked(plain, student, ramp_of(job))

    def finish(self, job: PruneJob, student: nn.Module) -> None:
        """Mask once more."""
        finish(student, ramp_of(job))


# of the rate of a training from scratch: a seed of the network starts from trained weights
GROW_LR = 0.2
METHODS: dict[str, Method] = {"cut": Cut(), "grow": Grow(), "sparse": Sparse()}
# of the steps of a training: then the masks stay where they are
RAMP = 0.6


def method_of(settings: PruneSettings) -> Method:
    """The method that a user names. Raises InvalidSetting for one that is not known."""
    if settings.method not in METHODS:
        raise InvalidSetting(f"--method {not_known(settings.method, METHODS)}")
    return METHODS[settings.method]


def dense_of(job: PruneJob) -> nn.Module:
    """A copy of the original, with the activation that was asked for."""
    if job.settings.activation is None:
        return prepare(job.original.module)
    return activated(job.original.module, job.settings.activation, example_of(job.original.shape))


def ramp_of(job: PruneJob) -> Ramp:
    """The sparsity over the steps of the training."""
    assert job.settings.sparsity is not None
    steps = job.epochs * steps_per_epoch(job.data, job.training) if job.data is not None else 1
    return Ramp(job.settings.sparsity, job.settings.pattern, max(1, round(RAMP * steps)))


def stored_sizes(module: nn.Module) -> dict[str, Metric]:
    """What the weights take once they are compressed, and the share of zeros in them."""
    sizes = compressed_bytes(module)
    total = sum(p.numel() for p in module.parameters())
    zeros = sum(int((p == 0).sum()) for p in module.parameters())
    return {
        "compressed_bytes": Metric(float(min(sizes.zlib, sizes.bitmask)), "B", "zlib, or a bit for each weight"),
        "zero_share": Metric(zeros / total, "", "counted"),
    }


def _choices(found: Pruned) -> dict[str, int | float | str | bool]:
    return {**found.keep, **{f"{block}.removed": True for block in found.history.blocks}}


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)
