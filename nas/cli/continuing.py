"""The pass `fine-tune` of a recipe: a run of `nas prune` without training gets a twin that goes on with its cut and trains it.

The twin has the network before the cut, so that it is the teacher, as it is in a prune that trains by itself.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from nas import files
from nas.cli.pruning.flow import prune_job_in
from nas.cli.pruning.job import PruneJob, make_prune_job, prune_configuration
from nas.cli.pruning.settings import PruneSettings
from nas.cli.pruning.stages import CUTS, STAGES
from nas.cli.recipe import FineTuneSettings
from nas.cli.settings import of_run
from nas.cli.sources import NETWORKS
from nas.rundir import RunDir


def fine_tune_in(out: Path, settings: FineTuneSettings, resumed: Path | None, as_json: bool) -> None:
    """Train the networks that the run settings.network of `nas prune` cut, in a run of its own, a new one or `resumed`.

    Raises what `nas prune` does.
    """
    before = RunDir.read(Path(settings.network))
    options = {name: value for name, value in asdict(settings).items() if name != "network"}
    wanted = of_run(RunDir.read(out), PruneSettings) if resumed else replace(of_run(before, PruneSettings), **options)
    job = make_prune_job(wanted)
    if resumed is None:
        _begin(out, before, job)
    prune_job_in(out, job, out, as_json)


def _begin(folder: Path, before: RunDir, job: PruneJob) -> None:
    """Make the twin, at once or not at all: with half of the records the network would be cut anew, and another way."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".", ignore_cleanup_errors=True) as aside:
        with RunDir.create("prune", prune_configuration(job), Path(aside) / folder.name) as run:
            run.append_trial(before.trials()[0])  # the original; what was cut from it is trained first
            shutil.copytree(before.path / NETWORKS, run.path / NETWORKS)
            for log in (STAGES, CUTS):
                for line in before.read_lines(log):
                    run.append_line(log, line)
        run.path.rename(folder)
    files.sync_folder(folder.parent)
