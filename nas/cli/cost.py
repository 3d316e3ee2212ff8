"""`nas cost`: what networks cost, layer by layer."""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def cost(  # noqa: PLR0913 - the options of a command are its parameters
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="NETWORK",
            help="torchvision:NAME, timm:NAME, cifar-resnet20 to -110, a run directory, RUN:KEY for one of its trials, "
            "architecture.json, model.onnx.",
        ),
    ],
    table: Annotated[
        str | None, typer.Option(help="Latency table: a file, or a name that `nas profile --list` shows.", show_default="none")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Channels x height x width of the images.",
            show_default="the network's own; 3x224x224 for torchvision and timm",
        ),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="One row a network, with ratios to the first.")] = False,
    by_layer: Annotated[
        bool | None,
        typer.Option("--by-layer/--no-by-layer", help="List the layers.", show_default="yes, but not with --compare"),
    ] = None,
    trust_code: opt.TrustCode = None,
    json: opt.Json = False,
) -> None:
    """Count what networks cost for one image: multiply-adds, parameters, stored size, memory, and latency by a table.

    An operation that cannot be counted is named. Parts of a network that the latency table lacks are named, too.

    \b
    Examples:
      nas cost torchvision:mobilenet_v2
      nas cost runs/search-1 --table latency.csv
      nas cost runs/search-1:0ff1d4e1f308 runs/search-1/best/architecture.json model.onnx
      nas cost torchvision:resnet50 torchvision:mobilenet_v2 timm:efficientnet_lite0 --compare
      nas cost torchvision:resnet18 --shape 3x96x96 --no-by-layer --json
    """
    from nas.cli.costing import Question, run_cost  # torch and all: only when there is work

    layers = by_layer if by_layer is not None else not compare
    run_cost(Question(tuple(networks), table, shape, compare, layers), json)
