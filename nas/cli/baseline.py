"""`nas baseline`: train the best plain network of a budget."""

from __future__ import annotations

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded
from nas.cli.settings import DEFAULTS


@guarded
def baseline(  # noqa: PLR0913 - the options of a command are its parameters
    ctx: typer.Context,
    budget: opt.Budgets = None,
    data: opt.Data = DEFAULTS.data,
    data_dir: opt.DataDir = None,
    resolution: opt.Resolution = None,
    space: opt.Family = DEFAULTS.space,
    batch_size: opt.BatchSize = None,
    optimizer: opt.Optimizer = DEFAULTS.optimizer,
    lr: opt.Lr = None,
    weight_decay: opt.WeightDecay = DEFAULTS.weight_decay,
    smoothing: opt.Smoothing = DEFAULTS.smoothing,
    clip_norm: opt.ClipNorm = DEFAULTS.clip_norm,
    flip: opt.Flip = None,
    crop: opt.Crop = None,
    cutout: opt.Cutout = DEFAULTS.cutout,
    mixup: opt.Mixup = DEFAULTS.mixup,
    train_precision: opt.TrainPrecision = DEFAULTS.train_precision,
    runtime: opt.Runtime = None,
    precision: opt.TargetPrecision = DEFAULTS.precision,
    batch: opt.Batch = DEFAULTS.batch,
    finetune_epochs: opt.Finetune = DEFAULTS.finetune_epochs,
    time: opt.Time = None,
    device: opt.Device = DEFAULTS.device,
    threads: opt.Threads = None,
    seed: opt.Seed = DEFAULTS.seed,
    out: opt.Out = None,
    resume: opt.Resume = False,
    json: opt.Json = False,
    config: opt.Config = None,
) -> None:
    """Train the best plain network of a budget: what a searched network has to beat.

    Scales a dense CNN, a ResNet and a MobileNetV2 to the budget, trains each briefly, and the best one for the rest of the
    time, with the recipe that `nas search` uses. Delivers and verifies it as a search does.

    \b
    Examples:
      nas baseline --budget 3MFLOPs
      nas baseline --budget 2MFLOPs --data fashion-mnist --time 3min
      nas baseline --budget 20MFLOPs --data npz:cifar10.npz --family resnet --finetune-epochs 40
    """
    from nas.cli.flow import run_baseline  # torch and all: only when there is work

    run_baseline(ctx)
