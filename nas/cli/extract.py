"""`nas extract`: deliver another network of a run than its best one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as opt
from nas.cli.errors import guarded


@guarded
def extract(  # noqa: PLR0913 - the options of a command are its parameters
    run: Annotated[Path, typer.Argument(help="Run directory of a search, a pruning, a quantization or a compression.")],
    key: Annotated[
        str, typer.Argument(help="Key of a network that the run evaluated, as in front.csv; its beginning is enough.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="RUN/extracted/KEY")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="as the run was started")
    ] = None,
    data: opt.MovedData = None,
    trust_code: opt.TrustCode = None,
    json: opt.Json = False,
) -> None:
    """Deliver any network that a run evaluated, as it delivered the best one.

    The network is taken from the trained supernet, its norms are recalibrated, and it is fine-tuned if the run fine-tunes;
    or it is what the pruning or the quantization kept, or their original. The files are written, reloaded, counted again and
    timed, and judged by the budgets of the run (of nas compress: of the pass that made the network); the test images are read
    once, for it. With --out nothing is written into the run, which may then still be going on.

    \b
    Examples:
      nas extract runs/search-1 010853705c17
      nas extract runs/search-1 0108 --out delivered
      nas extract runs/prune-1 5c1e --json
      nas extract runs/compress-1 2eeb

    Exit status: 0 done, 1 fine-tuning diverged, 2 bad input, 4 the network breaks a check or a budget (its files and
    verify.json stay), 130 interrupted.
    """
    from nas.cli.extracting import Wanted, run_extract  # torch and all: only when there is work

    run_extract(Wanted(run, key, out, device, data), json)
