"""`nas quantize`: round a network to integers, and let the clock say whether that made it faster."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded
from nas.cli.prune import BatchSize, Data, Network, Shape, Weights
from nas.cli.quantizing.settings import QUANTIZE_DEFAULTS as DEFAULTS

Budgets = Annotated[
    list[str] | None,
    typer.Option("--budget", "-b", help="What it may cost: 35%latency, 1ms, 2MB, 5GBitOps. Repeatable; all hold."),
]
Precision = Annotated[
    str,
    typer.Option(help="int8, mixed (bits chosen by layer under --budget), w4a8 and the like, fp8-e4m3 or fp8-e5m2."),
]
Method = Annotated[str, typer.Option(help="ptq: after training, on a few images. qat: trains the rounded network.")]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        help="Layer that stays in fp32, or has its own format: first, last, NAME, NAME=8. Repeatable.",
        show_default="what the clock says for int8; ends in 8 bits below",
    ),
]
Bits = Annotated[
    list[str] | None,
    typer.Option(
        help="Of mixed: a format of weights; repeatable. 2, 3, 4, 6, 8, 16, fp8-e4m3, fp8-e5m2, fp32.",
        show_default="2, 3, 4, 6, 8",
    ),
]
ActivationBits = Annotated[
    list[str] | None, typer.Option(help="Of mixed: a format of activations; repeatable.", show_default="8")
]
Sensitivity = Annotated[
    str, typer.Option(help="Of mixed: what tells the cost of bits: ablation, output-error, hessian or lrp.")
]
Calibration = Annotated[str, typer.Option(help="Ranges of activations: auto, min-max, percentile, mse or entropy.")]
Images = Annotated[int, typer.Option(min=4, help="Training images that ranges are calibrated on, at most.")]
Equalize = Annotated[bool, typer.Option("--equalize/--no-equalize", help="Equalize weights across layers where it helps.")]
CorrectBias = Annotated[bool, typer.Option("--correct-bias/--no-correct-bias", help="Correct biases where it helps.")]
Epochs = Annotated[int | None, typer.Option("--finetune-epochs", min=1, help="Of qat: epochs of training.", show_default="5")]
Lr = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.", show_default="0.003 for sgd, 0.0002 for adamw")]


@guarded
def quantize(  # noqa: PLR0913 - the options of a command are its parameters
    ctx: typer.Context,
    network: Network = "",
    weights: Weights = None,
    precision: Precision = DEFAULTS.precision,
    method: Method = DEFAULTS.method,
    budget: Budgets = None,
    keep: Keep = None,
    bits: Bits = list(DEFAULTS.bits),  # noqa: B006 - Typer copies it
    activation_bits: ActivationBits = list(DEFAULTS.activation_bits),  # noqa: B006 - Typer copies it
    sensitivity: Sensitivity = DEFAULTS.sensitivity,
    calibration: Calibration = DEFAULTS.calibration,
    images: Images = DEFAULTS.images,
    equalize: Equalize = DEFAULTS.equalize,
    correct_bias: CorrectBias = DEFAULTS.correct_bias,
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
    mixup: opt.Mixup = DEFAULTS.mixup,
    train_precision: opt.TrainPrecision = DEFAULTS.train_precision,
    runtime: opt.Runtime = None,
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
    """Round a network's weights and activations to few bits, export it, and time it beside the original.

    Folds batch norms, calibrates ranges on training images, equalizes layers and corrects biases where that helps, trains the
    rounded network with the original as teacher if asked to, and hands over files whose integers onnxruntime and OpenVINO run
    (best/model.onnx, .pt2, .safetensors). Accuracy is that of the exported file on all test images. Formats that no integer
    kernel runs are simulated, and labelled so: accuracy, size and bit operations are told, a time is not.

    \b
    Examples:
      nas quantize cifar-resnet56 --weights resnet56.safetensors --data npz:cifar10.npz
      nas quantize runs/prune-1 --data npz:cifar10.npz --budget 35%latency
      nas quantize cifar-resnet20 --weights r20.safetensors --data npz:cifar10.npz --precision w4a8 --method qat
      nas quantize cifar-resnet20 --weights r20.safetensors --data npz:cifar10.npz --precision mixed --budget 140kB
      nas quantize mobilenet_v2 --weights mv2.pth --data imagefolder:photos --runtime openvino
      nas quantize --resume --out runs/quantize-1

    Exit status: 0 done, 1 training diverged, 2 bad input, 3 no choice of bits keeps the budget, 4 verification failed or a
    budget is broken, 130 interrupted.
    """
    from nas.cli.quantizing.flow import run_quantize  # torch and all: only when there is work

    run_quantize(ctx)
