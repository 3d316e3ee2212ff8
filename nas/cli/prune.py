"""`nas prune`: make a network that the user already has keep a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded
from nas.cli.pruning.settings import PRUNE_DEFAULTS as DEFAULTS

Network = Annotated[
    str,
    typer.Argument(
        help="torchvision:NAME, timm:NAME, cifar-resnet20 to cifar-resnet110, python:MODULE:FUNCTION, or a run directory. "
        "[required]"
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Its weights: safetensors, or a state dict of PyTorch.")]
Budgets = Annotated[
    list[str] | None,
    typer.Option("--budget", "-b", help="What it may cost: 50%, 60%latency, 60MFLOPs, 2ms, 3Mparams. Repeatable; all hold."),
]
Sweep = Annotated[str | None, typer.Option(help="Budgets to try one after the other, such as 30,40,50,60,70%.")]
Method = Annotated[
    str, typer.Option(help="cut channels, grow from a small seed (trains from the start), or sparse: zeros among the weights.")
]
Sparsity = Annotated[float | None, typer.Option(min=0, max=1, help="Of --method sparse: share of the weights that are zero.")]
Pattern = Annotated[str, typer.Option(help="Of --method sparse: global, layer, 2:4, 1:4 or 4:8.")]
Activation = Annotated[
    str | None,
    typer.Option(help="Of --method sparse: silu, gelu, hardswish, ... in place of ReLU.", show_default="as it is"),
]
GrowEpochs = Annotated[int, typer.Option("--grow-epochs", min=1, help="Of --method grow: epochs of growing.")]
Importance = Annotated[
    str,
    typer.Option(
        help="Which channels go: auto, l1, l2, lamp, bn-scale, fpgm, taylor, hessian, activation, ablation, optin, synflow, "
        "random, or nni-l1, nni-l2, nni-fpgm of the extra nni."
    ),
]
Allocation = Annotated[
    str, typer.Option(help="How many where: auto, uniform, global, isomorphic, rd, sensitivity, precrop or latency.")
]
Steps = Annotated[int, typer.Option(min=1, help="Cut in so many steps; what is left is ranked anew after each.")]
Depth = Annotated[bool, typer.Option("--depth", help="Let whole residual blocks go, too.")]
Compensate = Annotated[
    bool, typer.Option("--compensate/--no-compensate", help="Solve the weights that read cut channels anew (least squares).")
]
RoundTo = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Keep channels in multiples of this; layers without such a multiple stay whole.",
        show_default="8, finer where a budget needs it, 16 where that is faster",
    ),
]
Least = Annotated[float, typer.Option(help="Least share of its channels that a layer keeps.")]
MaxDrop = Annotated[float, typer.Option(min=0, help="Of a --sweep without --budget: points of accuracy that may be lost.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="Data set to judge and fine-tune by: npz:FILE, imagefolder:DIR, cifar10, ...", show_default="none: random images"
    ),
]
Shape = Annotated[
    str | None, typer.Option(help="Channels x height x width of the images where no --data is given.", show_default="3x224x224")
]
Epochs = Annotated[
    int | None, typer.Option("--finetune-epochs", min=0, help="Epochs of fine-tuning.", show_default="10, none without --data")
]
BatchSize = Annotated[int, typer.Option(help="Images per step of fine-tuning.")]
Mixup = Annotated[
    float | None, typer.Option(min=0, help="Alpha of mixup; 0 for none.", show_default="0.2 with a teacher, none without")
]
Precision = Annotated[
    str, typer.Option("--precision", help="Precision of the timed network: fp32, bf16 or fp16, as far as the runtime has it.")
]
Lr = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.", show_default="0.01 for sgd, 0.0002 for adamw")]


@guarded
def prune(  # noqa: PLR0913 - the options of a command are its parameters
    ctx: typer.Context,
    network: Network = "",
    weights: Weights = None,
    budget: Budgets = None,
    sweep: Sweep = None,
    method: Method = DEFAULTS.method,
    importance: Importance = DEFAULTS.importance,
    allocation: Allocation = DEFAULTS.allocation,
    steps: Steps = DEFAULTS.steps,
    depth: Depth = DEFAULTS.depth,
    compensate: Compensate = DEFAULTS.compensate,
    round_to: RoundTo = DEFAULTS.round_to,
    least: Least = DEFAULTS.least,
    sparsity: Sparsity = None,
    pattern: Pattern = DEFAULTS.pattern,
    activation: Activation = None,
    grow_epochs: GrowEpochs = DEFAULTS.grow_epochs,
    max_drop: MaxDrop = DEFAULTS.max_drop,
    data: Data = None,
    data_dir: opt.DataDir = None,
    resolution: opt.Resolution = None,
    shape: Shape = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    finetune_epochs: Epochs = None,
    batch_size: BatchSize = DEFAULTS.batch_size,
    optimizer: opt.Optimizer = DEFAULTS.optimizer,
    lr: Lr = None,
    weight_decay: opt.WeightDecay = DEFAULTS.weight_decay,
    smoothing: opt.Smoothing = DEFAULTS.smoothing,
    clip_norm: opt.ClipNorm = DEFAULTS.clip_norm,
    flip: opt.Flip = None,
    crop: opt.Crop = None,
    cutout: opt.Cutout = DEFAULTS.cutout,
    mixup: Mixup = None,
    train_precision: opt.TrainPrecision = DEFAULTS.train_precision,
    runtime: opt.Runtime = None,
    precision: Precision = DEFAULTS.precision,
    batch: opt.Batch = DEFAULTS.batch,
    device: opt.Device = DEFAULTS.device,
    threads: opt.Threads = None,
    seed: opt.Seed = DEFAULTS.seed,
    out: opt.Out = None,
    resume: opt.Resume = False,
    trust_code: opt.TrustCode = None,
    json: opt.Json = False,
    config: opt.Config = None,
) -> None:
    """Make a network that you already have keep a budget, and prove that it does.

    Finds which channels go together, cuts what matters least where the budget wants it, recalibrates batch norms, fine-tunes
    with the original as teacher, and verifies the files that it hands over (best/model.onnx, .pt2, .safetensors). Percentages
    are of the original: 50% of its multiply-adds, 60%latency of its measured time. A budget on time is kept by the exported
    file, timed side by side with the original.

    \b
    Examples:
      nas prune cifar-resnet56 --weights resnet56.safetensors --data npz:cifar10.npz --budget 50%
      nas prune torchvision:resnet50 --weights r50.pth --data imagefolder:photos --budget 60%latency
      nas prune torchvision:mobilenet_v2 --budget 50%latency
      nas prune cifar-resnet56 --weights resnet56.safetensors --data npz:cifar10.npz --sweep 30,40,50,60,70%
      nas prune cifar-resnet20 --data npz:cifar10.npz --method grow --budget 50%
      nas prune resnet18 --weights r18.pth --data imagefolder:photos --method sparse --sparsity 0.5 --pattern 2:4
      nas prune runs/search-1 --data digits --budget 70% --depth
      nas prune --resume --out runs/prune-1

    Exit status: 0 done, 1 training diverged, 2 bad input, 3 no cut keeps the budget, 4 verification failed,
    130 interrupted.
    """
    from nas.cli.pruning.flow import run_prune  # torch and all: only when there is work

    run_prune(ctx)
