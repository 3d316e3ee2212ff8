"""From the settings of `nas prune` to the values that its stages work on: network, data, budgets, bench."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch

from compress.prune.pipeline import Calibration, Recipe, example_of
from nas.budget import Budget, parse_all
from nas.cli.existing import augmentation_of, configuration, data_for, read_data, training_of
from nas.cli.job import LEARNING_RATES, SMALL_NETWORK, pick_device
from nas.cli.profiling import bench_for
from nas.cli.pruning.original import Original, read_original
from nas.cli.pruning.settings import PruneSettings
from nas.cost.agreement import check_counts
from nas.cost.counting import count
from nas.data.augment import Augmentation
from nas.data.dataset import Dataset, epoch_batches, images_at_once
from nas.errors import InvalidBudget, InvalidSetting
from nas.evaluation.supernet import prepared
from nas.latency.bench import Bench
from nas.runtimes.runtime import Setting
from nas.training.loop import TrainConfig

# fine-tuning starts from trained weights, which the rate of a training from scratch would destroy
FINETUNE_LR = 0.1
FINETUNE_EPOCHS = 10
SPARSE_EPOCHS = 20  # zeros come one after the other, and each needs its time
# images that a cut is judged by: as many as so many multiply-adds let through, within bounds
LABELLED = (6e10, 64, 512)
CURVES = (6e10, 24, 512)
NORMS = (5e11, 128, 2048)
BATCH = 128
# channels are kept in multiples of so many where nothing is asked for, and finer ones where a budget is hit by them alone
ROUND_TO = 8


@dataclass(frozen=True)
class Aim:
    """One network that is wanted: the budgets that it keeps, relative ones to the original."""

    text: str
    budgets: tuple[Budget, ...]


@dataclass(frozen=True)
class PruneJob:
    """All that the stages share; `data` are normalized as the network expects, None where none were given."""

    settings: PruneSettings
    device: torch.device
    original: Original
    data: Dataset | None
    aims: tuple[Aim, ...]
    bench: Bench

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """What the delivered network keeps: those of --budget."""
        return parse_all(self.settings.budget)

    @property
    def objectives(self) -> list[str]:
        """The metrics that accuracy is traded for, each once."""
        return list(dict.fromkeys(b.metric for aim in self.aims for b in aim.budgets))

    @property
    def recipe(self) -> Recipe:
        """How the network is cut."""
        return recipe_of(self.settings)

    @property
    def training(self) -> TrainConfig:
        """Configuration of the fine-tuning. Needs data."""
        return training_of(self, FINETUNE_LR * LEARNING_RATES[self.settings.optimizer])

    @property
    def epochs(self) -> int:
        """Epochs of fine-tuning; none without data."""
        if self.data is None:
            return 0
        usual = FINETUNE_EPOCHS if self.settings.zeros is None else SPARSE_EPOCHS
        return usual if self.settings.finetune_epochs is None else self.settings.finetune_epochs

    @property
    def augmentation(self) -> Augmentation:
        """The data's own augmentation with what the user wants. Needs data."""
        return augmentation_of(self)


def make_prune_job(settings: PruneSettings) -> PruneJob:
    """Read the data, build the network, parse budgets. Raises InvalidSetting, InvalidData, InvalidBudget, MissingPackage."""
    device = pick_device(settings.device)
    bench = bench_for(settings.runtime, setting_of(settings))
    data = read_data(settings)
    original = read_original(settings, data)
    if not any(True for _ in original.module.parameters()):
        raise InvalidSetting(f"{original.name} has no weights, so that nothing of it can be cut; give a network that has")
    check_counts(original.name, original.module, original.plan, example_of(original.shape))
    # threads of small networks mostly wait for each other
    small = count(original.plan).values()["macs"] < SMALL_NETWORK
    torch.set_num_threads(settings.threads or (1 if small else torch.get_num_threads()))
    return PruneJob(settings, device, original, data_for(original, data, device), aims_of(settings), bench)


def setting_of(s: PruneSettings) -> Setting:
    """How files are timed. Raises InvalidSetting for a device that is not there."""
    return Setting(str(pick_device(s.device)), s.precision, s.batch, s.threads or 1)


def recipe_of(s: PruneSettings) -> Recipe:
    """How a network is cut. Raises InvalidSetting."""
    exact = s.round_to is not None
    return Recipe(s.importance, s.allocation, s.steps, s.round_to or ROUND_TO, s.least, s.depth, s.compensate, s.seed, exact)


def calibration_of(job: PruneJob) -> Calibration:
    """Training images that the cut is judged by: three disjoint draws, as far as there are enough."""
    data = job.data
    if data is None:
        return Calibration()
    macs = count(job.original.plan).values()["macs"]
    wanted = [_images(macs, bounds) for bounds in (LABELLED, CURVES, NORMS)]
    at_once = min(images_at_once(data.resolution, BATCH, job.device), len(data.train))
    batches = epoch_batches(len(data.train), at_once, job.settings.seed, 0)
    size, start, draws = len(batches[0]), 0, []
    for images in wanted:
        number = max(1, images // size)
        chosen = [batches[(start + i) % len(batches)][:images] for i in range(min(number, len(batches)))]
        start += number
        draws.append(list(prepared(data.train, chosen, data, data.resolution, job.device)))
    labelled, curved, norms = ([(x, y.to(job.device)) for x, y in draw] for draw in draws)
    precision = job.training.precision
    return Calibration(tuple(labelled), tuple(x for x, _ in curved), tuple(x for x, _ in norms), precision)


def prune_configuration(job: PruneJob) -> dict[str, Any]:
    """The content of config.json."""
    trained = job.data is not None and job.settings.trains
    return configuration(job, "prune", job.objectives, job.training if trained else None)


def aims_of(settings: PruneSettings) -> tuple[Aim, ...]:
    """The networks that are wanted: one for --budget, one for each level of --sweep."""
    budgets = parse_all(settings.budget)
    for budget in budgets:
        _check_budget(budget)
    aims = [Aim(" ".join(settings.budget), budgets)] if budgets else []
    aims += [Aim(budget.text, (budget,)) for budget in sweep_of(settings.sweep)] if settings.sweep is not None else []
    if settings.zeros is not None:
        aims.append(Aim(f"{settings.zeros:.0%} zeros, {settings.pattern}", ()))
    if not aims:
        raise InvalidBudget("no --budget was given; say what the network may cost, for example --budget 50%")
    return tuple(aims)


# -- parts


def sweep_of(text: str) -> tuple[Budget, ...]:
    """Read `30,40,50%` or `20,30MFLOPs`: numbers without a unit take that of the last. Raises InvalidBudget."""
    parts = [part.strip() for part in text.split(",")]
    match = re.fullmatch(r"[\d.]+\s*([a-zA-Z%].*)", parts[-1])
    if match is None or not all(parts):
        raise InvalidBudget(f"--sweep {text!r} was not understood; write levels with the unit after the last, like 30,50,70%")
    budgets = tuple(Budget.parse(part if re.search(r"[^\d.]", part) else part + match[1]) for part in parts)
    for budget in budgets:
        _check_budget(budget)
    return budgets


def _check_budget(budget: Budget) -> None:
    if budget.relative and budget.limit >= 1:
        raise InvalidBudget(f"budget {budget.text!r} allows as much as the original has; give less than 100%")
    if "@" in budget.metric or budget.metric == "energy_mj":
        raise InvalidBudget(
            f"budget {budget.text!r} cannot be judged: a cut network is timed on this machine, and no published table "
            "has its layers; give a budget in ms, %latency, or on counts"
        )


def _images(macs: float, bounds: tuple[float, int, int]) -> int:
    work, least, most = bounds
    return int(max(least, min(most, work / macs)))
