"""From settings to the values that the stages work on: device, data, space, budgets, training configuration."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nas.architecture import Architecture, SearchSpace
from nas.budget import Budget, Cost, parse_all, share
from nas.cli.deciding import (
    Decision,
    Question,
    augmentation_of,
    batch_size_of,
    decide,
    decided_before,
    families_of,
    lesson_of,
    plain_families,
    with_steps,
)
from nas.cli.latency import LATENCY, bench_of, check_tables, cost_models
from nas.cli.places import PLACES, data_config, places
from nas.cli.planning import TimePlan, supernet_epochs
from nas.cli.settings import Settings, command_line
from nas.cli.telling import noted
from nas.cost.counting import count
from nas.data.augment import Augmentation
from nas.data.dataset import Dataset
from nas.data.load import load
from nas.errors import InvalidBudget, InvalidSetting, not_known
from nas.evaluation.alone import Lesson
from nas.latency.bench import Bench
from nas.latency.costing import CostModel, OwnLatency
from nas.latency.machine import device_name
from nas.plan import Plan
from nas.rundir import RunDir
from nas.search.problem import SearchProblem
from nas.training.loop import OPTIMIZERS, TrainConfig
from nas.training.samplers import SAMPLERS, Sampler, Sampling
from nas.training.speed import has_bf16

# of a budget in ms: timings of one file differ by a few percent from one process to the next
HEADROOM = 0.95
LEARNING_RATES = {"sgd": 0.1, "adamw": 0.002}
INT8 = "int8"
SMALL_NETWORK = 10e6  # multiply-adds
LARGE_IMAGES = 64  # pixels, from which more than one thread helps before anything is known of the network
PACKAGES = ("netcarver", "torch", "torchvision", "numpy", "optuna", "onnx", "onnxruntime", "fvcore", "scikit-learn")


@dataclass(frozen=True)
class Job:
    """All that the stages of a search or a training share; `models` say what counting does not: time and energy."""

    settings: Settings
    device: torch.device
    data: Dataset
    space: SearchSpace
    budgets: tuple[Budget, ...]
    bench: Bench
    decision: Decision
    models: tuple[CostModel, ...] = ()

    @property
    def plan(self) -> TimePlan:
        """How the time is divided."""
        return self.decision.plan

    @property
    def lesson(self) -> Lesson:
        """How a network of the space is trained alone; its length is that of a comparison."""
        lesson = lesson_of(self.settings, self.data, self.decision.precision)
        return with_steps(lesson, self.plan.compared_steps)

    @property
    def training(self) -> TrainConfig:
        """Configuration of the supernet's training, defaults filled in."""
        s = self.settings
        batch = batch_size_of(s, self.data)
        epochs = s.epochs if s.epochs is not None else supernet_epochs(self.data, max(1, batch))
        return TrainConfig(
            epochs,
            batch,
            s.optimizer,
            s.lr if s.lr is not None else LEARNING_RATES[s.optimizer],
            s.weight_decay,
            clip_norm=s.clip_norm,
            precision=self.decision.precision,
            seed=s.seed,
            steps=self.plan.supernet_steps,
        )

    @property
    def augmentation(self) -> Augmentation:
        """The data's own augmentation with what the user wants."""
        return augmentation_of(self.settings, self.data)

    @property
    def problem(self) -> SearchProblem:
        """What is searched: minimize validation error and every budgeted metric."""
        objectives = tuple(b.metric for b in self.budgets)
        return SearchProblem(self.space, self.cost, self.aims, self.settings.seed, objectives)

    @property
    def aims(self) -> tuple[Budget, ...]:
        """The budgets that the search keeps: of a limit on this machine's time a little is left for its noise."""
        return tuple(replace(b, aim=HEADROOM) if b.metric == LATENCY else b for b in self.budgets)

    @property
    def sampler(self) -> Sampler:
        """The networks that the supernet's training takes in each step."""
        sampling = Sampling(self.space, self.settings.seed, lambda arch: share(self.aims, self.cost(arch)))
        return SAMPLERS[self.settings.sampler](sampling)

    @property
    def own_latency(self) -> OwnLatency | None:
        """The model of this machine's time, None where no budget needs it."""
        return next((model for model in self.models if isinstance(model, OwnLatency)), None)

    def cost(self, arch: Architecture) -> Cost:
        """Count the plan of `arch`, and predict what the tables tell."""
        plan = self.space.plan(arch)
        counted = count(in_integers(plan) if self.settings.precision == INT8 else plan)
        predicted = {name: metric for model in self.models for name, metric in model(arch, plan).items()}
        return replace(counted, metrics={**counted.metrics, **predicted})


def in_integers(plan: Plan) -> Plan:
    """The plan with weights and activations of 8 bits."""
    return replace(plan, layers=tuple(replace(layer, weight_bits=8, act_bits=8) for layer in plan.layers))


def make_job(settings: Settings, resumed: Path | None = None, plain: bool = False) -> Job:
    """Read the data, choose or size the space, measure or load the latency table; `plain` for the plain networks alone.

    Raises InvalidSetting, InvalidData, InvalidBudget.
    """
    if settings.optimizer not in OPTIMIZERS:
        raise InvalidSetting(f"--optimizer {not_known(settings.optimizer, OPTIMIZERS)}")
    if settings.sampler not in SAMPLERS:
        raise InvalidSetting(f"--sampler {not_known(settings.sampler, SAMPLERS)}")
    # refused before anything is read
    families, options = plain_families(settings) if plain else families_of(settings)
    device, budgets = pick_device(settings.device), parse_all(settings.budget)
    for budget in budgets:
        if budget.relative:
            raise InvalidBudget(f"budget {budget.text!r} is relative to an original network, which a search does not have")
    check_precision(settings.train_precision)
    bench = bench_of(settings, device)
    data = load(data_config(vars(settings), settings.resolution))
    # arrays of images live where they are used; image folders are decoded on the processor
    data = replace(data, train=data.train.to(device), val=data.val.to(device))
    question = Question(settings, data, budgets, bench, device, families, options)
    if settings.threads or data.resolution < LARGE_IMAGES:
        torch.set_num_threads(settings.threads or 1)
    lesson_of(settings, data, "fp32")  # raises for a recipe that cannot be, before anything is trained
    check_tables(budgets, settings)
    source = resumed or (Path(settings.supernet) if settings.supernet else None)
    decision = decided_before(RunDir.read(source), question, resumed is not None) if source else decide(question)
    models = cost_models(budgets, decision.space, bench, settings, resumed)
    torch.set_num_threads(settings.threads or default_threads(decision.space))
    return Job(settings, device, data, decision.space, budgets, bench, decision, models)


def configuration(job: Job, command: str) -> dict[str, Any]:
    """The content of config.json."""
    space = job.space
    value = {
        **circumstances(command, job.settings.to_json(), job.device, job.bench),
        "budgets": [{"text": b.text, "metric": b.metric, "limit": b.limit} for b in job.budgets],
        "objectives": list(job.problem.objectives),
        "space": {"name": space.name, "version": space.version, "settings": space.settings},
        "plan": {**job.plan.to_json(), "precision": job.decision.precision},
        "choice": list(job.decision.evidence),
        "training": vars(job.training if job.plan.shared else job.lesson.config),
        "augmentation": vars(job.augmentation),
        "data": described(job.data),
        "notes": noted(job.data),
        PLACES: places(vars(job.settings)),
    }
    return json.loads(json.dumps(value))


def circumstances(command: str, options: Mapping[str, object], device: torch.device, bench: Bench) -> dict[str, Any]:
    """What config.json says first: what was asked for, with which versions, and where."""
    return {
        "command": command,
        "argv": command_line(),
        "options": options,
        "seed": options["seed"],
        "versions": versions(),
        "device": {"type": device.type, "name": device_name(device), "threads": torch.get_num_threads()},
        "target": asdict(bench.target),
    }


def described(data: Dataset) -> dict[str, Any]:
    """What config.json keeps of the data."""
    names = ("name", "fingerprint", "classes", "class_names", "channels", "resolution", "mean", "std")
    return {**{n: getattr(data, n) for n in names}, "train": len(data.train), "val": len(data.val)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}}


def pick_device(name: str) -> torch.device:
    """Read auto, cpu, cuda or cuda:N. Raises InvalidSetting for anything else, or if that device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if not match:
        raise InvalidSetting(f"--device {name!r} is not known; choose auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(match[1] or 0) >= torch.cuda.device_count():
        raise InvalidSetting(
            f"--device {name!r} is not there: torch finds {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return torch.device(name)


def check_precision(name: str) -> None:
    """Raise InvalidSetting for a precision of training that is not known."""
    if name not in ("auto", "fp32", "bf16"):
        raise InvalidSetting(f"--train-precision {name!r} is not known; choose auto, fp32 or bf16")


def precision(name: str, device: torch.device, plan: Plan) -> str:
    """Read auto, fp32 or bf16. Automatic is bf16 where the hardware multiplies it natively.

    On processors depthwise convolutions are bound by memory and conversions, and bf16 made them slower by half
    (docs/benchmarks.md), so that only networks of dense convolutions get it there: `plan` is the (largest) one.
    """
    check_precision(name)
    if name != "auto":
        return name
    suits = device.type == "cuda" or all(layer.groups == 1 for layer in plan.layers)
    return "bf16" if suits and has_bf16(device) else "fp32"


def default_threads(space: SearchSpace) -> int:
    """All cores; one for small networks, whose threads mostly wait, and for each other when the machine is busy."""
    largest = count(space.plan(space.largest())).values()["macs"]
    return 1 if largest < SMALL_NETWORK else torch.get_num_threads()
