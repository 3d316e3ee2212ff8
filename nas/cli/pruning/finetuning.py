"""The training of a network that was cut: distilled from the original, whose features it follows where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from compress.prune.attention import prepare
from compress.prune.matching import places
from compress.prune.pipeline import example_of
from compress.prune.saved import read_history
from nas.cli.pruning.job import PruneJob
from nas.cli.pruning.methods import method_of
from nas.cli.sources import reload
from nas.cli.stages import Course, fit
from nas.rundir import RunDir
from nas.training.features import Place, matched
from nas.training.loop import Checkpoints, Objective
from nas.training.objectives import SOFT, classification, distillation

# of the distance of features, which begins at about 0.1: how much nearer the network comes for it is in docs/benchmarks.md
FEATURES = 80.0


def finetuned(job: PruneJob, run: RunDir, folder: Path) -> nn.Module:
    """Fine-tune the network that is stored in `folder`, under the name of that folder. Needs data."""
    assert job.data is not None
    method, key = method_of(job.settings), folder.name
    student = method.student(job, reload(folder))
    found = compared(job, student, folder)
    student = student.to(job.device).to(memory_format=torch.channels_last)
    course = Course(job.data, job.augmentation, replace(job.training, epochs=job.epochs))
    with _minimized(job, student, found) as plain:
        objective = method.objective(job, student, plain)
        fit(f"fine-tuning {key}", student, objective, course, Checkpoints(run, f"finetune-{key}"))
    method.finish(job, student)
    return student


def compared(job: PruneJob, student: nn.Module, folder: Path) -> tuple[Place, ...]:
    """Where features of a student, which is on the CPU, are compared with the original's; nowhere if that is random."""
    if not (job.original.trained and method_of(job.settings).follows_features):
        return ()
    whole = prepare(job.original.module).cpu().to(memory_format=torch.contiguous_format)
    return places(whole, student, example_of(job.original.shape), read_history(folder))


def _minimized(job: PruneJob, student: nn.Module, found: Sequence[Place]) -> AbstractContextManager[Objective]:
    """The distance to the original, which sees the same augmented images; to the labels, where it knows nothing itself."""
    smoothing = job.settings.smoothing
    if not job.original.trained:
        return nullcontext(classification(student, smoothing))
    teacher = job.original.module.to(job.device).to(memory_format=torch.channels_last)
    return matched(distillation(student, teacher, replace(SOFT, smoothing=smoothing)), student, teacher, found, FEATURES)
