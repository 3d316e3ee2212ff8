"""What `nas prune` and `nas quantize` share: jobs on a network that the user already has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from nas.architecture import Architecture
from nas.budget import Budget
from nas.cli.job import check_precision, circumstances, described, precision
from nas.cli.memory import give_freed_memory_back
from nas.cli.normalization import advice, better, fitting
from nas.cli.places import PLACES, data_config, places
from nas.cli.progress import log
from nas.cli.pruning.original import Original
from nas.cli.shared_settings import ExistingSettings, TrainingSettings
from nas.cli.sources import run_of
from nas.cli.telling import noted
from nas.cost.counting import count
from nas.data.augment import Augmentation, Wanted, augmentation_for
from nas.data.dataset import Dataset
from nas.data.load import load
from nas.errors import InvalidSetting, not_known
from nas.latency.bench import Bench
from nas.training.loop import OPTIMIZERS, TrainConfig
from nas.trial import Trial

# of a fine-tuning whose teacher answers for any image, blended ones, too (docs/benchmarks.md); for quantization-aware
# training it was not measured, and has to be asked for
TAUGHT_MIXUP = 0.2


class ExistingJob(Protocol):
    """A job on a network; `data` are normalized as it expects, None where none were given."""

    @property
    def settings(self) -> ExistingSettings:
        """What the user asked for."""

    @property
    def device(self) -> torch.device:
        """Where it is trained and judged."""

    @property
    def original(self) -> Original:
        """The network."""

    @property
    def data(self) -> Dataset | None:
        """Images, if there are."""

    @property
    def bench(self) -> Bench:
        """What times files."""

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """What the delivered network keeps."""

    @property
    def epochs(self) -> int:
        """Epochs of training, 0 for none."""


def read_data(settings: ExistingSettings) -> Dataset | None:
    """The data set that a user names, None where none is named. Raises InvalidData."""
    if settings.data is None:
        return None
    # what is only cut or rounded needs no validation by class: one image of each will do
    return load(data_config(vars(settings), settings.resolution, least=2 if settings.trains else 1))


def data_for(original: Original, data: Dataset | None, device: torch.device) -> Dataset | None:
    """The data on a device, normalized as the network expects, which is said; a warning where the images tell otherwise."""
    if data is None:
        return None
    give_freed_memory_back()
    used = fitting(original.normalization, data)
    log(f"images are normalized with {used} ({used.origin})")
    own = run_of(original.name) is not None
    macs = count(original.plan).values()["macs"]
    if original.trained and not own and (found := better(original.module, data, used, macs)):
        log(advice(original.name, used, found))
    return replace(data, train=data.train.to(device), val=data.val.to(device), mean=used.mean, std=used.std)


def check_training(s: TrainingSettings) -> None:
    """Raise InvalidSetting for numbers out of range, and for names that are not known."""
    if s.optimizer not in OPTIMIZERS:
        raise InvalidSetting(f"--optimizer {not_known(s.optimizer, OPTIMIZERS)}")
    check_precision(s.train_precision)
    TrainConfig(1, s.batch_size, lr=1.0 if s.lr is None else s.lr, weight_decay=s.weight_decay, clip_norm=s.clip_norm)


def training_of(job: ExistingJob, lr: float) -> TrainConfig:
    """Configuration of the training; `lr` holds where the user named none."""
    s = job.settings
    return TrainConfig(
        max(1, job.epochs),
        s.batch_size,
        s.optimizer,
        s.lr if s.lr is not None else lr,
        s.weight_decay,
        clip_norm=s.clip_norm,
        precision=precision(s.train_precision, job.device, job.original.plan),
        seed=s.seed,
    )


def augmentation_of(job: ExistingJob) -> Augmentation:
    """The data's own augmentation with what the user wants; a teacher answers for blended images, too. Needs data."""
    assert job.data is not None
    s, taught = job.settings, TAUGHT_MIXUP if job.original.trained else 0.0
    return augmentation_for(job.data, Wanted(s.crop, s.flip, s.cutout, taught if s.mixup is None else s.mixup))


def configuration(job: ExistingJob, command: str, objectives: Sequence[str], training: TrainConfig | None) -> dict[str, Any]:
    """The content of config.json; `training` is None where nothing is trained."""
    value = {
        **circumstances(command, job.settings.to_json(), job.device, job.bench),
        "budgets": [{"text": b.text, "metric": b.metric, "limit": b.limit} for b in job.budgets if not b.relative],
        "objectives": list(objectives),
        "space": {"name": f"{command}:{job.original.name}", "version": 1, "settings": dict(job.original.source)},
        "data": described(job.data) if job.data is not None else {},
        "notes": noted(job.data) if job.data is not None else [],
        PLACES: places(vars(job.settings)),
    }
    if training is not None:
        value |= {"training": vars(training), "augmentation": vars(augmentation_of(job))}
    return json.loads(json.dumps(value))


def trial_of(record: dict[str, Any]) -> Trial:
    """Read a line of trials.jsonl."""
    stored = record["architecture"]
    return Trial.from_json(record, Architecture(stored["space"], stored["choices"]))
