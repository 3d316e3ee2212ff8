"""From the settings of `nas quantize` to the values that its stages work on: network, graph, data, budgets, bench."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compress.quantize.bits import BITS_BUDGETS, MixConfig
from compress.quantize.formats import FLOAT, FORMATS, runs_in_int8
from compress.quantize.graph import Network, network_of
from compress.quantize.memory import images_at_once
from compress.quantize.ptq import PtqConfig
from compress.quantize.scheme import kept_formats, kept_layers, read_precision
from nas.budget import Budget, parse_all
from nas.cli.checking import comparison_images
from nas.cli.existing import augmentation_of, check_training, configuration, data_for, read_data, training_of
from nas.cli.job import SMALL_NETWORK, pick_device
from nas.cli.profiling import bench_for
from nas.cli.progress import log
from nas.cli.pruning.original import Original, read_original
from nas.cli.quantizing.settings import QUANTIZE_DEFAULTS, QuantizeSettings
from nas.cost.agreement import check_counts, check_known
from nas.cost.counting import count
from nas.cost.recount import recount
from nas.data.augment import Augmentation
from nas.data.dataset import Dataset
from nas.errors import InvalidBudget, InvalidSetting
from nas.evaluation.supernet import prepared
from nas.latency.bench import Bench
from nas.runtimes.runtime import Setting
from nas.torch_seeding import generator
from nas.training.loop import TrainConfig

MIXED, INT8 = "mixed", "int8"
METHODS = ("ptq", "qat")
# what other precisions do not look at
OF_MIXED = ("bits", "activation_bits", "sensitivity")
# the weights are nearly where they should be, and without batch norms higher rates destroy them
QAT_LR = {"sgd": 0.003, "adamw": 0.0002}
QAT_EPOCHS = 5
# images that a graph and its network are compared on before anything is rounded
COMPARED = 8
# images of noise, and of data at once at most
NOISE, BATCH = 16, 64


@dataclass(frozen=True)
class QuantizeJob:
    """All that the stages share; `data` are normalized as the network expects, None where none were given."""

    settings: QuantizeSettings
    device: torch.device
    original: Original
    network: Network
    data: Dataset | None
    bench: Bench

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """What the delivered network keeps."""
        return parse_all(self.settings.budget)

    @property
    def ptq(self) -> PtqConfig:
        """How ranges are calibrated."""
        return _ptq(self.settings)

    @property
    def mix(self) -> MixConfig:
        """What a mixed precision may be made of."""
        s = self.settings
        return MixConfig(s.bits, s.activation_bits, s.sensitivity, kept_layers(self.network, s.keep))

    @property
    def epochs(self) -> int:
        """Epochs of quantization-aware training."""
        if self.settings.method != "qat":
            return 0
        return QAT_EPOCHS if self.settings.finetune_epochs is None else self.settings.finetune_epochs

    @property
    def training(self) -> TrainConfig:
        """Configuration of the quantization-aware training."""
        return training_of(self, QAT_LR[self.settings.optimizer])

    @property
    def augmentation(self) -> Augmentation:
        """The data's own augmentation with what the user wants. Needs data."""
        return augmentation_of(self)


def make_quantize_job(settings: QuantizeSettings) -> QuantizeJob:
    """Read the data, build and trace the network. Raises InvalidSetting, InvalidData, InvalidBudget, MissingPackage."""
    device = pick_device(settings.device)
    bench = bench_for(settings.runtime, _setting(settings))
    data = read_data(settings)
    original = read_original(settings, data)
    example = torch.zeros(1, *original.shape)
    check_counts(original.name, original.module, original.plan, example)
    if settings.threads or count(original.plan).values()["macs"] < SMALL_NETWORK:
        torch.set_num_threads(settings.threads or 1)
    data = data_for(original, data, device)
    network = network_of(original.module, original.shape, comparison_images(data, COMPARED, original.shape))
    check_known(original.name, recount(network.module, example).uncounted)  # its operations are others
    kept_layers(network, settings.keep)  # names of layers are known now
    return QuantizeJob(settings, device, original, network, data, bench)


def calibration_images(job: QuantizeJob) -> list[Tensor]:
    """As many training images as were asked for, normalized, on the CPU, in batches of (N, C, H, W) that fit into memory.

    Noise where there are no data: ranges do not change the time, and there is nothing else to learn from noise.
    """
    size = images_at_once(job.network, BATCH)
    if job.data is None:
        draw = generator(job.settings.seed, "calibration")
        return [torch.randn(min(size, NOISE // 2), *job.original.shape, generator=draw) for _ in range(2)]
    there = len(job.data.train)
    wanted = min(job.settings.images, there)
    if wanted < job.settings.images:
        log(f"--images {job.settings.images}: {job.data.name} has {there} training images, and all of them are used")
    order = torch.randperm(there, generator=generator(job.settings.seed, "epoch", 0))[:wanted]
    batches = list(order.split(max(1, min(size, wanted // 2))))
    cpu = torch.device("cpu")
    return [x for x, _ in prepared(job.data.train, batches, job.data, job.data.resolution, cpu)]


def quantize_configuration(job: QuantizeJob) -> dict[str, Any]:
    """The content of config.json."""
    return configuration(job, "quantize", ["size_bytes"], job.training if job.data is not None and job.epochs else None)


def check_settings(s: QuantizeSettings) -> None:
    """Raise InvalidSetting or InvalidBudget for what does not go together, before anything is read."""
    if not s.network:
        raise InvalidSetting("no network was given; name one: nas quantize cifar-resnet56 --weights FILE --data npz:FILE")
    if s.method not in METHODS:
        raise InvalidSetting(f"--method {s.method!r} is not known; choose ptq (after training) or qat (trains)")
    check_training(s)
    if s.method == "qat" and s.data is None:
        raise InvalidSetting("--method qat needs images to train on; give --data")
    _ptq(s)
    bench_for(s.runtime, _setting(s))
    budgets, kept = parse_all(s.budget), kept_formats(s.keep)
    if s.precision == MIXED:
        MixConfig(s.bits, s.activation_bits, s.sensitivity, {})
        _check_mixed(budgets)
        _check_timed(budgets, (*s.bits, *s.activation_bits, *kept))
    else:
        _check_timed(budgets, (*read_precision(s.precision), *kept))


def check_given(s: QuantizeSettings, names: Collection[str]) -> None:
    """Raise InvalidSetting for an option of a mixed precision, among those that the user gave, where this is none."""
    for name in OF_MIXED:
        chosen = name in names and getattr(s, name) != getattr(QUANTIZE_DEFAULTS, name)
        if chosen and s.precision != MIXED:
            raise InvalidSetting(f"--{name.replace('_', '-')} is of --precision mixed, and this is {s.precision}; drop one")


def _setting(s: QuantizeSettings) -> Setting:
    """How files are timed: those with integers run on processors."""
    return Setting("cpu", INT8, s.batch, s.threads or 1)


def _ptq(s: QuantizeSettings) -> PtqConfig:
    return PtqConfig(s.calibration, s.equalize, s.correct_bias)


def _check_timed(budgets: tuple[Budget, ...], formats: tuple[str, ...]) -> None:
    """Raise InvalidBudget for a budget on time where no runtime runs one of the formats."""
    known = [name for name in dict.fromkeys(formats) if name in FORMATS and name != FLOAT]
    simulated = [name for name in known if not runs_in_int8(name)]
    for budget in budgets:
        if budget.metric == "latency_ms" and simulated:
            raise InvalidBudget(
                f"budget {budget.text!r} cannot be judged: {', '.join(simulated)} is simulated, and no runtime here runs it; "
                "drop the budget, or choose integers of 8 bits or fewer"
            )


def _check_mixed(budgets: tuple[Budget, ...]) -> None:
    """Raise InvalidBudget if there is no budget that bits could keep, or one that they do not change."""
    for budget in budgets:
        if budget.metric not in (*BITS_BUDGETS, "latency_ms"):
            raise InvalidBudget(f"budget {budget.text!r} does not depend on bits; give stored weights (2MB) or 5GBitOps")
    if not any(budget.metric in BITS_BUDGETS for budget in budgets):
        raise InvalidBudget(
            "--precision mixed chooses bits under a budget; give one on stored weights or bit operations: 2MB, 5GBitOps"
        )
