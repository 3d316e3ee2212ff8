"""`nas export`: write a network as the file that a deployment runtime reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded
from nas.cli.prune import Network, Shape, Weights


@guarded
def export(  # noqa: PLR0913 - the options of a command are its parameters
    network: Network,
    format: Annotated[str, typer.Option("--format", "-f", help="onnx, pt2, openvino, executorch or torchscript.")] = "onnx",
    weights: Weights = None,
    data: Annotated[
        str | None, typer.Option(help="Real images to compare on.", show_default="those of the run; else noise")
    ] = None,
    shape: Shape = None,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="NETWORK with the format's suffix")] = None,
    trust_code: opt.TrustCode = None,
    json: opt.Json = False,
) -> None:
    """Export a network, open the file in its runtime, and compare it with the network in memory.

    The classes must agree on all images, and the logits within a thousandth of the largest one; else nothing is left behind
    and the exit status is 4. The file needs nothing of netcarver.

    \b
    Examples:
      nas export runs/search-1 --format openvino
      nas export resnet50 --weights r50.pth --format onnx --out resnet50.onnx
      nas export runs/prune-1 --format torchscript --out model.pt
    """
    from nas.cli.exporting import Wanted, run_export  # torch and all: only when there is work

    run_export(Wanted(network, format, str(weights) if weights else None, data, shape, out), json)
