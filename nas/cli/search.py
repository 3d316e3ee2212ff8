"""`nas search`: train a supernet, search it, deliver the best network that keeps the budget."""

from __future__ import annotations

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded
from nas.cli.settings import DEFAULTS


@guarded
def search(  # noqa: PLR0913 - the options of a command are its parameters
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
    runtime: opt.Runtime = None,
    precision: opt.TargetPrecision = DEFAULTS.precision,
    batch: opt.Batch = DEFAULTS.batch,
    table: opt.Table = None,
    accept_foreign_table: opt.AcceptForeign = DEFAULTS.accept_foreign_table,
    searcher: opt.Searcher = DEFAULTS.searcher,
    trials: opt.Trials = DEFAULTS.trials,
    finetune_epochs: opt.Finetune = DEFAULTS.finetune_epochs,
    time: opt.Time = None,
    evaluate: opt.Evaluate = DEFAULTS.evaluate,
    baseline: opt.Baseline = None,
    supernet: opt.Supernet = None,
    device: opt.Device = DEFAULTS.device,
    threads: opt.Threads = None,
    seed: opt.Seed = DEFAULTS.seed,
    out: opt.Out = None,
    resume: opt.Resume = False,
    json: opt.Json = False,
    config: opt.Config = None,
) -> None:
    """Search the best network that keeps a budget.

    Trains one supernet on your data, searches it, extracts the best network that keeps every --budget, verifies the
    files that it hands over (best/model.onnx, .pt2, .safetensors) and writes a report. A budget in ms is kept by the
    measured time of the exported file on this machine; the latency table that guides the search is measured first.

    \b
    Examples:
      nas search --budget 3MFLOPs
      nas search --budget 20MFLOPs --budget 500kparams --data npz:cifar10.npz --flip --finetune-epochs 10
      nas search --budget 0.5ms --data npz:cifar10.npz --space resnet
      nas search --budget 15ms@pixel3 --space fbnet --data imagefolder:photos --resolution 32
      nas search --budget 3MFLOPs --searcher optuna-tpe --supernet runs/search-1
      nas search --resume --out runs/search-1

    Exit status: 0 done, 1 training diverged, 2 bad input, 3 no network keeps the budget, 4 verification failed,
    130 interrupted.
    """
    from nas.cli.flow import run_search  # torch and all: only when there is work

    run_search(ctx)
