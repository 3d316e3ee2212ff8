"""`nas compress`: a chain of passes from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded
from nas.cli.prune import Network

Recipe = Annotated[Path | None, typer.Option("--recipe", "-r", help="TOML file with the passes.")]


@guarded
def compress(  # noqa: PLR0913 - the options of a command are its parameters
    network: Network = "",
    recipe: Recipe = None,
    out: opt.Out = None,
    resume: opt.Resume = False,
    data: opt.MovedData = None,
    trust_code: opt.TrustCode = None,
    json: opt.Json = False,
) -> None:
    """Chain passes on a network: prune, fine-tune, quantize, export. Each is measured; the chain stops where a bound breaks.

    A recipe has options of all passes at its top, such as network, weights, data, device and seed, and one [[pass]] each: its
    name (prune, fine-tune, quantize, export), options of that command, and bounds: max_drop, points of validation accuracy that
    may be lost since the start, and min_speedup, how many times as fast as the original the network must be. fine-tune follows
    a prune, which then does not train by itself, and is taught by the network before the cut; it takes the options of nas
    prune that are about training. Batch norms are recalibrated by prune and fine-tune; method = "qat" trains in quantize.

    \b
    A recipe:
      network = "cifar-resnet56"
      weights = "resnet56.safetensors"
      data = "npz:cifar10.npz"
      [[pass]]
      name = "prune"
      budget = "50%latency"
      max_drop = 30
      [[pass]]
      name = "fine-tune"
      finetune_epochs = 10
      max_drop = 1.0
      [[pass]]
      name = "quantize"
      precision = "int8"
      max_drop = 1.0
      min_speedup = 2.5
      [[pass]]
      name = "export"
      format = "openvino"

    \b
    Examples:
      nas compress --recipe recipe.toml
      nas compress runs/search-1 --recipe recipe.toml --out runs/small
      nas compress --resume --out runs/small

    Each pass is a run in the folder passes/, which `nas report` and `nas verify` read. Exit status: 0 done, 1 training
    diverged, 2 bad input, 3 a budget cannot be kept, 4 a bound or a budget is broken, 130 interrupted.
    """
    from nas.cli.compressing import Asked, run_compress  # torch and all: only when there is work

    run_compress(Asked(network, recipe, out, resume, json, data))
