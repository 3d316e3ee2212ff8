"""`nas train`: train a supernet without searching it."""

from __future__ import annotations

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded
from nas.cli.settings import DEFAULTS


@guarded
def train(  # noqa: PLR0913 - the options of a command are its parameters
    ctx: typer.Context,
    budget: opt.Budgets = None,
    data: opt.Data = DEFAULTS.data,
    data_dir: opt.DataDir = None,
    resolution: opt.Resolution = None,
    space: opt.Space = DEFAULTS.space,
    set: opt.Set = None,
    epochs: opt.Epochs = None,
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
    sampler: opt.Sampler = DEFAULTS.sampler,
    train_precision: opt.TrainPrecision = DEFAULTS.train_precision,
    device: opt.Device = DEFAULTS.device,
    threads: opt.Threads = None,
    seed: opt.Seed = DEFAULTS.seed,
    out: opt.Out = None,
    resume: opt.Resume = False,
    json: opt.Json = False,
    config: opt.Config = None,
) -> None:
    """Train a supernet whose space is sized to a budget; search it later, as often as you like.

    \b
    Examples:
      nas train --budget 3MFLOPs --out runs/digits
      nas search --budget 2MFLOPs --supernet runs/digits
    """
    from nas.cli.flow import run_train  # torch and all: only when there is work

    run_train(ctx)
