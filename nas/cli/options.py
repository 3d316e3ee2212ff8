"""The options that commands share, each declared once. Nothing heavy is imported here: `nas --help` must be quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.errors import unknown_key
from nas.files import read_regular


def load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the keys of a TOML file the defaults of the command. Raises BadParameter for an unknown key."""
    if path is None:
        return None
    import tomllib  # only where a file is given

    try:
        values = tomllib.loads(read_regular(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise typer.BadParameter(f"cannot read {path}: {cause}") from cause
    known = {p.name for p in ctx.command.params} - {"config"}
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if unknown := sorted(set(values) - known):
        raise typer.BadParameter(f"{path} {unknown_key(unknown[0], known)}")
    if isinstance(values.get("set"), dict):
        values["set"] = [f"{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in values["set"].items()]
    for name in {"budget", "set"} & set(values):
        values[name] = [values[name]] if isinstance(values[name], str) else values[name]
    ctx.default_map = {**(ctx.default_map or {}), **values}
    return path


_DATA = "digits, fashion-mnist, cifar10, cifar100, imagefolder:DIR, csv:FILE, npz:FILE"
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        "-b",
        help="What the network may cost, such as 3MFLOPs, 2ms, 2MB, 320KBpeak. Repeatable; all hold. [required]",
    ),
]
Data = Annotated[str, typer.Option(help=f"Data set: {_DATA}.")]
MovedData = Annotated[
    str | None,
    typer.Option(
        "--data", help="Where the run's data are now: npz:FILE, imagefolder:DIR or csv:FILE.", show_default="where they were"
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of downloaded data sets.")]
Resolution = Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="the data's own")]
Space = Annotated[str, typer.Option(help="Search space; auto chooses by short trainings. See `nas spaces`.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Setting of the space, such as squeeze_excite=true. Repeatable.")]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="Mean that images are normalized with, one number or one a channel, for pixels in 0..1.",
        show_default="the network's own where it is known, else the data's",
    ),
]
Std = Annotated[
    str | None, typer.Option(metavar="NUMBERS", help="Standard deviation that goes with --mean.", show_default="as --mean")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of supernet training.", show_default="by size of the data")]
BatchSize = Annotated[int | None, typer.Option(help="Images per step.", show_default="64, or 128 from 10,000 images on")]
Optimizer = Annotated[str, typer.Option(help="sgd or adamw.")]
Lr = Annotated[float | None, typer.Option("--lr", help="Peak learning rate.", show_default="0.1 for sgd, 0.002 for adamw")]
WeightDecay = Annotated[float, typer.Option(help="Decay of convolution and linear weights.")]
Smoothing = Annotated[float, typer.Option(min=0, max=1, help="Label smoothing.")]
ClipNorm = Annotated[float, typer.Option(help="Largest gradient norm.")]
Flip = Annotated[
    bool | None,
    typer.Option(
        "--flip/--no-flip",
        help="Mirror training images at random.",
        show_default="on where that is known to keep the class: fashion-mnist, cifar10, cifar100",
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="PIXELS",
        help="Shift training images by up to PIXELS, a random crop after padding; 0 for none.",
        show_default="an eighth of the side; a search: a sixteenth",
    ),
]
Cutout = Annotated[int, typer.Option(help="Side of the square that cutout hides, in pixels; 0 for none.")]
Mixup = Annotated[float, typer.Option(min=0, help="Alpha of mixup; 0 for none.")]
Sampler = Annotated[
    str,
    typer.Option(
        "--sampler",
        help="Networks of a step of the supernet: budget (the largest and one near the budget), pair (the largest and any), "
        "or sandwich (the largest, the smallest and two others).",
    ),
]
TrainPrecision = Annotated[str, typer.Option("--train-precision", help="auto, fp32 or bf16 (autocast).")]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="Runtime that latency is measured in: onnxruntime, torch, torch-compile or openvino.",
        show_default="onnxruntime on cpu, torch on cuda",
    ),
]
TargetPrecision = Annotated[str, typer.Option("--precision", help="Precision of the timed network: fp32, bf16, fp16 or int8.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Images a pass of the timed network.")]
Table = Annotated[
    Path | None, typer.Option("--table", help="Latency table to use.", show_default="that of this machine, measured if need be")
]
AcceptForeign = Annotated[
    bool, typer.Option("--accept-foreign-table", help="Use --table though it was measured on another target.")
]
Searcher = Annotated[
    str,
    typer.Option(
        help="random, evolution, regularized-evolution, local-search, optuna-nsga2, or optuna-tpe, which takes longer with "
        "every trial and suits a few hundred.",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(min=1, help="Networks to evaluate.", show_default="100 with a supernet, a few that are trained alone"),
]
Finetune = Annotated[
    int | None,
    typer.Option(
        "--finetune-epochs",
        min=0,
        help="Epochs of training the best network alone; 0 delivers it with the supernet's weights.",
        show_default="what --time leaves, those of --epochs, or by the size of the data",
    ),
]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        help="Time for the whole run, such as 3min or 2h, on an otherwise idle machine.",
        show_default="by the size of the data, estimated at the start",
    ),
]
Evaluate = Annotated[
    str,
    typer.Option(
        help="How networks are compared: with the shared weights of a supernet, each trained alone, or auto.",
    ),
]
Baseline = Annotated[
    bool | None,
    typer.Option(
        "--baseline/--no-baseline",
        help="Also train the best plain network of the same budget, and deliver it if it wins.",
        show_default="where it takes under a quarter of the run",
    ),
]
Family = Annotated[str, typer.Option("--family", help="Plain family: auto (the best of them), cnn, resnet or mobilenet.")]
Supernet = Annotated[Path | None, typer.Option("--supernet", help="Run directory whose trained supernet is searched.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processor threads; 1 is faster on a busy machine.", show_default="all cores, 1 for small networks"
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")]
Out = Annotated[Path | None, typer.Option(help="Run directory.", show_default="runs/COMMAND-N")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, or with the last one.")]
TrustCode = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-code", metavar="MODULE:FUNCTION", help="Import this function, which the files of a run name. Repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Config = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="TOML file with option names as keys.", callback=load_config, is_eager=True),
]
