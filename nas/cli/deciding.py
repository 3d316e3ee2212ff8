"""What a search does before it begins: which space, whether a supernet pays, and how the time is divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from nas.architecture import Architecture, SearchSpace
from nas.budget import Budget, Cost, share
from nas.cli import planning
from nas.cli.choosing import Wanted, candidates, handful, sides
from nas.cli.clocking import by_the_clock
from nas.cli.contest import Choice, choose, seconds_of_rounds
from nas.cli.latency import check_named
from nas.cli.planning import SUPERNET_TRIALS, TimePlan, parse_time
from nas.cli.progress import log
from nas.cli.settings import Settings
from nas.cli.space import sizing, space_of, space_options
from nas.cost.counting import count
from nas.data.augment import Augmentation, augmentation_for
from nas.data.augment import Wanted as WantedAugmentation
from nas.data.dataset import Dataset
from nas.errors import InfeasibleBudget, InvalidSetting, not_known
from nas.evaluation.alone import Lesson, fresh
from nas.latency.bench import Bench
from nas.rundir import RunDir
from nas.search.problem import SearchProblem
from nas.training.loop import TrainConfig
from nas.training.samplers import SAMPLERS, Sampling, step_cost
from nas.training.speed import has_bf16, seconds_per_step
from nas.weights import from_bytes
from search_spaces import SPACES, Family, sized
from search_spaces.plain import OPTIONS as PLAIN_OPTIONS
from search_spaces.plain import PLAIN
from search_spaces.staged import DataShape

AUTO = "auto"
AUTO_FAMILIES = ("convnet", "resnet", "mobilenet")
# how networks are compared: with the shared weights of a supernet, or each trained alone
SHARED, ALONE = "supernet", "alone"
EVALUATE = (AUTO, SHARED, ALONE)
LARGE_DATA = 10_000
DIGITS = "digits"
# the checkpoint of the weights that the training of the delivered network begins with
CHOSEN = "chosen"
LARGE_FOR_DIGITS = 30e6  # multiply-adds
# of a network that is trained alone, at 128 images a step; a supernet's gradients are sums over networks
ALONE_LR = {"sgd": 0.3, "adamw": 0.002}
ALONE_LR_BATCH = 128
CROP_SHARE = 16
LEAST_MULTIPLE = 0.1  # of widths: as narrow as they get
# of --time, about what is left for the training of the delivered network
LAST_TRAINING = 0.75
# of the steps of the last training: at most so many for each short training
CHOOSING_PART = 6
# bf16 has to be so much faster than fp32 to be taken
WORTHWHILE = 1.15


@dataclass(frozen=True)
class Question:
    """What a decision is made from; `families` are by name, with the options of each."""

    settings: Settings
    data: Dataset
    budgets: tuple[Budget, ...]
    bench: Bench
    device: torch.device
    families: Mapping[str, Family]
    options: Mapping[str, Any]

    @property
    def shape(self) -> DataShape:
        """What the spaces have to know of the data."""
        return DataShape(self.data.channels, self.data.resolution, self.data.classes)


@dataclass(frozen=True)
class Decision:
    """The space, the plan, the precision of trainings, and the evidence that the space was chosen by, if it was.

    `weights` are those of its largest network after the short trainings, from which it is trained on.
    """

    space: SearchSpace
    plan: TimePlan
    precision: str
    evidence: tuple[dict[str, object], ...] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)


def families_of(settings: Settings) -> tuple[dict[str, Family], dict[str, Any]]:
    """The families that --space names and their options by --set. Raises InvalidSetting."""
    if settings.space == AUTO:
        if settings.set:
            raise InvalidSetting(f"--set {settings.set[0]!r} is a setting of one space; name it, such as --space mobilenet")
        names = ("fbnet",) if any("@" in text for text in settings.budget) else AUTO_FAMILIES
        return {name: SPACES[name] for name in names}, {name: SPACES[name].options() for name in names}
    if settings.space not in SPACES:
        raise InvalidSetting(f"--space {not_known(settings.space, (AUTO, *SPACES))}")
    family = SPACES[settings.space]
    return {settings.space: family}, {settings.space: space_options(family, settings.set)}


def plain_families(settings: Settings) -> tuple[dict[str, Family], dict[str, Any]]:
    """The plain families, or the one that --space names. Raises InvalidSetting."""
    names = tuple(PLAIN) if settings.space == AUTO else (settings.space,)
    if settings.space not in (AUTO, *PLAIN):
        raise InvalidSetting(f"--family {not_known(settings.space, (AUTO, *PLAIN))}")
    return {name: PLAIN[name] for name in names}, {name: PLAIN_OPTIONS[name] for name in names}


def decided_before(run: RunDir, question: Question, resumed: bool) -> Decision:
    """The decision of a run that is resumed, or whose supernet is searched with a plan of its own."""
    space, config = space_of(run.config), run.config
    stored = dict(config.get("plan", {}))
    precision = stored.pop("precision", config.get("training", {}).get("precision", "fp32"))
    if resumed and stored:
        begun = run.load_checkpoint(CHOSEN)
        weights = from_bytes(begun[0]) if begun else {}
        return Decision(space, TimePlan(**stored), precision, tuple(config.get("choice", ())), weights)
    settings = question.settings
    final = None if settings.time else _final_steps(question, shared=True)
    if resumed:  # of before there were plans: nothing was trained on unless that was asked for
        final = final if settings.finetune_epochs else 0
    plan = TimePlan(parse_time(settings.time), True, stored.get("supernet_steps"), settings.trials or SUPERNET_TRIALS, 1, final)
    return Decision(space, plan, precision)


def decide(question: Question) -> Decision:
    """Choose the space, whether its networks share weights, and the lengths of all trainings."""
    settings, seconds = question.settings, parse_time(question.settings.time)
    _warn_of_digits(question)
    if settings.evaluate not in EVALUATE:
        raise InvalidSetting(f"--evaluate {not_known(settings.evaluate, EVALUATE)}")
    shared = _shared(question, seconds)
    if shared and len(question.families) == 1:
        ((name, family),) = question.families.items()
        options = question.options[name]
        limits = list(sizing(question.budgets, family, question.shape, options, question.bench))
        offered = sides(question.data.resolution, limits)
        if not options.resolutions and len(offered) > 1:  # then the resolution is a choice of the search
            options = replace(options, resolutions=offered)
        space = sized(family, question.shape, limits, options)
        return _planned(question, space, shared, (), seconds)
    wanted = Wanted(question.shape, question.budgets, question.options, question.bench)
    found = by_the_clock(candidates(question.families, wanted), wanted)
    if not found:
        raise _infeasible(question)
    precision = measured_precision(settings.train_precision, question.device, *_largest(question, found[0].space))
    lesson = lesson_of(settings, question.data, precision)
    left = handful(found, wanted, lesson, (settings.seed, question.device), LAST_TRAINING * seconds)
    most = max(1, (_final_steps(question, shared) or 1) // CHOOSING_PART)
    length = seconds_of_rounds(left, lesson, most, seconds)
    log(f"choosing among {len(left)} networks by short trainings, about {planning.tell(length)}")
    choice = choose(left, lesson, settings.seed, question.device, seconds, most)
    _tell(choice, len(found), len(left))
    space = choice.candidate.with_room(wanted) if shared else choice.candidate.space
    decision = _planned(question, space, shared, choice.evidence, seconds)
    return decision if shared else replace(decision, weights=choice.candidate.weights)


def _warn_of_digits(question: Question) -> None:
    """Say at once, before anything is measured or trained, that a budget is that of other images."""
    large = [b.text for b in question.budgets if b.metric == "macs" and b.limit > LARGE_FOR_DIGITS]
    if large and question.data.name == DIGITS:
        log(
            f"warning: without --data this trains on {len(question.data.train)} digits of {question.data.resolution} pixels, "
            f"for which {large[0]} is far too much; give your images, --data imagefolder:DIR, or a budget such as 3MFLOPs"
        )


def _infeasible(question: Question) -> InfeasibleBudget:
    """The error for budgets that no form of any family meets, with what the smallest network costs."""
    problems = []
    for name, family in question.families.items():
        space = family.make(question.shape, family.macros[-1], LEAST_MULTIPLE, question.options[name])
        problems.append(SearchProblem(space, lambda arch, s=space: count(s.plan(arch)), question.budgets))  # type: ignore[misc]
    smallest = min(problems, key=lambda p: p.smallest_cost.values()["macs"])
    return InfeasibleBudget(f"no network of {', '.join(question.families)} keeps {smallest.limits()}; {smallest.advice()}")


def lesson_of(settings: Settings, data: Dataset, precision: str) -> Lesson:
    """How a network is trained alone."""
    batch = batch_size_of(settings, data)
    lr = settings.lr if settings.lr is not None else ALONE_LR[settings.optimizer] * batch / ALONE_LR_BATCH
    config = TrainConfig(
        1, batch, settings.optimizer, lr, settings.weight_decay,
        clip_norm=settings.clip_norm, precision=precision, seed=settings.seed,
    )  # fmt: skip
    return Lesson(data, augmentation_of(settings, data), config, settings.smoothing)


def augmentation_of(settings: Settings, data: Dataset) -> Augmentation:
    """The augmentation of a search: shifts of a sixteenth of the side, unless the user wants others.

    Twice as much, which suits hundreds of epochs, cost small networks 1.5 points after 35 epochs (docs/benchmarks.md).
    """
    crop = settings.crop if settings.crop is not None else max(1, data.resolution // CROP_SHARE)
    return augmentation_for(data, WantedAugmentation(crop, settings.flip, settings.cutout, settings.mixup))


def batch_size_of(settings: Settings, data: Dataset) -> int:
    """Images a step: as asked for, else 128 of large data sets and 64 of small ones."""
    return settings.batch_size if settings.batch_size is not None else 128 if len(data.train) >= LARGE_DATA else 64


def measured_precision(name: str, device: torch.device, module: nn.Module, shape: tuple[int, int, int, int]) -> str:
    """Read auto, fp32 or bf16: automatic is bf16 where a training step of `module` takes clearly less time with it."""
    if name != AUTO:
        return name
    if device.type == "cuda" or not has_bf16(device):
        return "bf16" if has_bf16(device) else "fp32"
    times = {precision: seconds_per_step(module, shape, device, precision) for precision in ("fp32", "bf16")}
    return "bf16" if times["fp32"] > WORTHWHILE * times["bf16"] else "fp32"


def _largest(question: Question, space: SearchSpace) -> tuple[nn.Module, tuple[int, int, int, int]]:
    """The largest network of a space before any training, and the shape of its batches."""
    lesson = lesson_of(question.settings, question.data, "fp32")
    module = fresh(space, space.largest(), question.settings.seed, question.device)
    return module, lesson.shape(space.resolutions[-1])


def _shared(question: Question, seconds: float) -> bool:
    """Whether a supernet is trained: as asked for; with --epochs, which are its own; else on small data without --time."""
    settings = question.settings
    if settings.evaluate != AUTO:
        return settings.evaluate == SHARED
    return settings.epochs is not None or (not seconds and len(question.data.train) < planning.SMALL_DATA)


def _planned(
    question: Question, space: SearchSpace, shared: bool, evidence: tuple[dict[str, object], ...], seconds: float
) -> Decision:
    settings, data = question.settings, question.data
    batch = min(batch_size_of(settings, data), len(data.train))
    check_named(question.budgets, space, settings)
    module, shape = _largest(question, space)
    precision = measured_precision(settings.train_precision, question.device, module, shape)
    final = None if seconds and settings.finetune_epochs is None else _final_steps(question, shared)
    trials = settings.trials or (SUPERNET_TRIALS if shared else planning.ALONE_TRIALS)
    compared, supernet = max(1, planning.COMPARED // batch), None
    step = seconds_per_step(module, shape, question.device, precision)
    relative = planning.OVERHEAD * _supernet_step(question, space) if shared else 0.0
    if seconds:
        if not settings.trials:
            trials = SUPERNET_TRIALS // 2 if shared else 1
        compared = planning.steps_for(planning.COMPARING * seconds / trials, step)
        supernet = planning.steps_for(planning.SUPERNET * seconds, relative * step) if shared else None
    plan = TimePlan(seconds, shared, supernet, trials, compared, final)
    epochs = settings.epochs or planning.supernet_epochs(data, batch)
    estimate = seconds or planning.estimated(plan, relative * epochs * max(1, len(data.train) // batch), step)
    return Decision(space, replace(plan, estimate=round(estimate, 1)), precision, evidence)


def _supernet_step(question: Question, space: SearchSpace) -> float:
    """What a step of the supernet's training costs, in steps of its largest network."""

    def cost_of(arch: Architecture) -> Cost:
        return count(space.plan(arch))

    known = [b for b in question.budgets if not b.relative and b.metric in cost_of(space.smallest()).metrics]
    sampling = Sampling(space, question.settings.seed, lambda arch: share(known, cost_of(arch)))
    return step_cost(SAMPLERS[question.settings.sampler](sampling), lambda arch: cost_of(arch).values()["macs"])


def _final_steps(question: Question, shared: bool) -> int:
    """Steps of training the delivered network: as asked for, as long as the supernet's, or by the size of the data."""
    settings, data = question.settings, question.data
    batch = min(batch_size_of(settings, data), len(data.train))
    epochs = settings.finetune_epochs
    if epochs is None:
        epochs = settings.epochs or planning.final_epochs(data, batch, shared)
    return epochs * max(1, len(data.train) // batch)


def _tell(choice: Choice, found: int, left: int) -> None:
    """Say what was chosen, and why."""
    last = max(row["round"] for row in choice.evidence)  # type: ignore[type-var]
    final = sorted((r for r in choice.evidence if r["round"] == last), key=lambda r: -float(str(r["val_accuracy"])))
    rows = ", ".join(
        f"{r['family']} {float(str(r['macs'])) / 1e6:.3g} MFLOPs at {r['resolution']} pixels {r['val_accuracy']:.1%}"
        for r in final
    )
    c, macro = choice.candidate, choice.candidate.form.macro
    log(
        f"space {c.family} ({macro.name or 'widths ' + ', '.join(map(str, macro.widths))}): chosen from {found} forms, of "
        f"which {left} were trained briefly; the last round: {rows}"
    )


def with_steps(lesson: Lesson, steps: int) -> Lesson:
    """The same lesson of another length."""
    return replace(lesson, config=replace(lesson.config, steps=steps))
