"""From the network to trials: the original, quantized after training, and trained on; each stage is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.quantize.bits import cost_of, mixed
from compress.quantize.convert import converted
from compress.quantize.formats import FLOAT, FORMATS, INT8
from compress.quantize.passes import Passes
from compress.quantize.ptq import quantize
from compress.quantize.saved import about_of, load_simulated, points_of, read_about, save_simulated, scheme_of
from compress.quantize.scheme import Scheme, kept_layers, read_precision, uniform
from nas.accuracy import with_error
from nas.architecture import Architecture
from nas.budget import Cost, format_value
from nas.cli.existing import trial_of
from nas.cli.memory import give_freed_memory_back
from nas.cli.progress import bar, log
from nas.cli.quantizing.clock import Clock
from nas.cli.quantizing.job import MIXED, QuantizeJob, calibration_images
from nas.cli.stages import Course, fit
from nas.cost.counting import count
from nas.evaluation.supernet import judge
from nas.rundir import RunDir
from nas.training.loop import Checkpoints
from nas.training.objectives import SOFT, distillation
from nas.trial import Trial

STAGES, NETWORKS, PTQ, QAT = "stages.jsonl", "networks", "ptq", "qat"


@dataclass(frozen=True)
class Candidate:
    """A quantized network as it is stored: `about` is the content of its quantization.json."""

    architecture: Architecture
    folder: Path
    about: dict[str, Any]


def trials_of(job: QuantizeJob, run: RunDir, clock: Clock) -> list[Trial]:
    """The original as trial 0, quantized after training as trial 1, trained as trial 2; recorded ones are not done again."""
    done = [trial_of(record) for record in run.trials()]
    makers = [_original_trial, _ptq_trial, _qat_trial][: 3 if job.epochs else 2]
    for number in range(len(done), len(makers)):
        start = time.monotonic()
        trial = makers[number](job, run, clock)
        run.append_trial(replace(trial, number=number, seconds=time.monotonic() - start).to_json())
        done.append(replace(trial, number=number))
    return done


def candidate_of(run: RunDir, trial: Trial) -> Candidate:
    """What is stored of a trial. Raises CorruptRun."""
    folder = run.path / NETWORKS / trial.architecture.key
    return Candidate(trial.architecture, folder, read_about(folder))


def simulated_of(job: QuantizeJob, candidate: Candidate) -> fx.GraphModule:
    """The simulated network of a trial, on the CPU."""
    return load_simulated(candidate.folder, job.network)


def original_cost(job: QuantizeJob) -> Cost:
    """What the network costs in fp32: its layers with their batch norms folded."""
    floats = uniform(job.network, FLOAT, FLOAT)
    counted = cost_of(job.network, replace(floats, others=FLOAT), count(job.original.plan))
    params = sum(p.numel() for p in job.network.module.parameters())
    return replace(counted, metrics={**counted.metrics, "params": replace(counted.metrics["params"], value=params)})


# -- the stages


def _original_trial(job: QuantizeJob, run: RunDir, clock: Clock) -> Trial:
    log(f"original {job.original.name}: evaluating it")
    scores = _scores(job, job.original.module)
    cost = original_cost(job)
    _tell(job, "original", cost, scores)
    return Trial(0, _architecture(job, uniform(job.network, FLOAT, FLOAT), "none"), "complete", cost, scores)


def _ptq_trial(job: QuantizeJob, run: RunDir, clock: Clock) -> Trial:
    images = calibration_images(job)
    log(f"calibrating on {sum(map(len, images))} images{'' if job.data is not None else ' of noise'}")
    scheme, losses = _scheme(job, images, clock)
    give_freed_memory_back()
    with bar("calibrating, at most", len(images)) as shown:
        passes = Passes(lambda made, most: shown.update(made, total=most))
        found = quantize(job.network, scheme, images, job.ptq, passes)
    log(
        f"ranges by {found.calibration}, {'equalized' if found.equalized else 'not equalized'}, "
        f"{'biases corrected' if found.corrected else 'biases as they were'}: output divergence {found.error:.3g}"
    )
    arch = _architecture(job, scheme, PTQ)
    about = about_of(found, job.original.source, job.original.shape)
    about |= {"losses": {name: dict(by_format) for name, by_format in losses.items()}, "images": sum(map(len, images))}
    _save(job, run, arch, found.module, about)
    del images
    give_freed_memory_back()
    scores = _scores(job, found.module)
    return _recorded(job, run, arch, scheme, scores, PTQ)


def _qat_trial(job: QuantizeJob, run: RunDir, clock: Clock) -> Trial:
    """Train the quantized network with its scales (learned step size), distilled from the one in fp32."""
    assert job.data is not None
    before = candidate_of(run, trial_of(run.trials()[1]))
    scheme = scheme_of(before.about)
    student = simulated_of(job, before).to(job.device)
    teacher = job.original.module.to(job.device).to(memory_format=torch.channels_last)
    objective = distillation(student, teacher, replace(SOFT, smoothing=job.settings.smoothing))
    fit(
        "quantization-aware training",
        student,
        objective,
        Course(job.data, job.augmentation, job.training),
        Checkpoints(run, QAT),
    )
    student = student.cpu().eval()
    arch = _architecture(job, scheme, QAT)
    _save(job, run, arch, student, {**before.about, "epochs": job.epochs})
    return _recorded(job, run, arch, scheme, _scores(job, student), QAT)


# -- choosing formats


def _scheme(job: QuantizeJob, images: list[Tensor], clock: Clock) -> tuple[Scheme, Any]:
    """The formats of the layers, and the losses that they were chosen by, where they were."""
    s, network = job.settings, job.network
    if s.precision == MIXED:
        budgets = [b.resolve(original_cost(job)) for b in job.budgets if b.metric != "latency_ms"]
        log(f"sensitivity of {len(network.layers)} layers by {s.sensitivity}")
        found = mixed(network, budgets, count(job.original.plan), images[:2], job.mix)
        return found.scheme, found.losses
    weights, inputs = read_precision(s.precision)
    if s.keep:
        return uniform(network, weights, inputs, kept_layers(network, s.keep)), {}
    if FORMATS[weights].bits < 8 or FORMATS[inputs].bits < 8:
        log("the first and the last layer stay in 8 bits; say --keep first=4 --keep last=4 for fewer")
        return uniform(network, weights, inputs, kept_layers(network, [f"first={INT8}", f"last={INT8}"])), {}
    scheme = uniform(network, weights, inputs)
    return (_faster(job, images, clock, scheme) if (weights, inputs) == (INT8, INT8) else scheme), {}


def _faster(job: QuantizeJob, images: list[Tensor], clock: Clock, plain: Scheme) -> Scheme:
    """The scheme, or the one with the first layer in fp32, where that is faster: an image has few channels."""
    first = kept_layers(job.network, ["first"])
    schemes = {"all": plain, "first": uniform(job.network, INT8, INT8, first)}
    quick = replace(job.ptq, calibration="min-max", equalize=False, correct_bias=False)
    files = {}
    for name, scheme in schemes.items():
        found = quantize(job.network, scheme, images[:1], quick)
        files[name] = clock.exported(converted(found.module, job.network), name)
    chosen = clock.fastest(files)
    if chosen == "first":
        log(f"{next(iter(first))} stays in fp32, which is faster")
    return schemes[chosen]


# -- parts


def _save(job: QuantizeJob, run: RunDir, arch: Architecture, module: fx.GraphModule, about: dict[str, Any]) -> None:
    points = points_of(module, job.network)
    save_simulated(run.path / NETWORKS / arch.key, module, {**about, "points": points})


def _recorded(job: QuantizeJob, run: RunDir, arch: Architecture, scheme: Scheme, scores: dict[str, float], stage: str) -> Trial:
    run.append_line(STAGES, {"key": arch.key, "stage": stage, "scores": scores})
    cost = cost_of(job.network, scheme, original_cost(job))
    _tell(job, stage, cost, scores)
    return Trial(0, arch, "complete", cost, scores)


def _architecture(job: QuantizeJob, scheme: Scheme, method: str) -> Architecture:
    """A quantized network as values: the formats of each layer, and how it was made."""
    layers = {name: f"w{scheme.weights[name]}a{scheme.inputs[name]}" for name in scheme.weights}
    return Architecture(f"quantize:{job.original.identity}@1", {**layers, "method": method})


def _scores(job: QuantizeJob, module: nn.Module) -> dict[str, float]:
    """Validation accuracy and loss; nothing without data."""
    if job.data is None:
        return {}
    right, loss = judge(module.to(job.device), job.data.val, job.data, job.data.resolution)
    module.cpu()
    return {"val_accuracy": right, "val_loss": loss}


def _tell(job: QuantizeJob, label: str, cost: Cost, scores: dict[str, float]) -> None:
    numbers = [
        format_value("size_bytes", cost.metrics["size_bytes"].value),
        format_value("bitops", cost.metrics["bitops"].value),
    ]
    numbers += (
        [f"{with_error(scores['val_accuracy'], len(job.data.val))} validation"] if scores and job.data is not None else []
    )
    log(f"{label}: {', '.join(numbers)}")
