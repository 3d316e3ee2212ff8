"""The plain network beside the searched one: trained in the same way and for as long, delivered in its place if it wins."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import Any

from nas.budget import format_value
from nas.cli import elapsed
from nas.cli.deciding import ALONE, AUTO
from nas.cli.deliver import BEST, VERIFY, final_steps, unbeaten, write_card
from nas.cli.finding import found
from nas.cli.job import Job, configuration, make_job
from nas.cli.planning import Clock, times
from nas.cli.progress import log
from nas.cli.settings import Settings
from nas.errors import InfeasibleBudget
from nas.report.contents import BASELINE, SUMMARY
from nas.rundir import CONFIG, RunDir
from nas.training.loop import total_steps
from nas.trial import shortfall

# what a summary says of the search, whatever network is delivered
OF_THE_SEARCH = ("command", "front", "trials", "time", "seconds", "latency", "cheaper")


def baseline_pays(job: Job, run: RunDir) -> bool:
    """Whether the plain network is trained, too: as asked for, else where that takes under a quarter of the run.

    A step of a supernet costs about 1.6 of the plain network's, one of the network that it teaches 1.4, so that it does where
    the supernet's training has more steps.
    """
    if job.settings.baseline is not None:
        return job.settings.baseline
    if not job.plan.shared or job.plan.seconds or job.settings.supernet:
        return False
    return (final_steps(job, run) or 0) <= total_steps(job.data, job.training)


def beside_baseline(job: Job, run: RunDir, summary: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Train the plain network in a run of its own within the run, and compare; deliver it if it is the better one.

    Validation images decide. The summary tells of both.
    """
    log("the plain network of the same budget, for comparison")
    path = run.path / BASELINE
    resumed = path if (path / CONFIG).is_file() else None
    plain: dict[str, Any] = dict(RunDir.read(path).record(SUMMARY)) if (path / SUMMARY).is_file() else {}
    if not plain:
        its_clock, began = Clock(job.device), time.monotonic()
        try:
            own = make_job(_settings(job, run), resumed, plain=True)
        except InfeasibleBudget as problem:
            log(f"no plain network beside it: {problem}")
            return summary
        before = elapsed.spent(path) if resumed else 0.0
        with RunDir.open(path) if resumed else run.create_within(BASELINE, BASELINE, configuration(own, BASELINE)) as nested:
            elapsed.begin(nested, before)
            with clock.stage(run, "training the plain network"):
                plain = found(own, nested, resumed, its_clock)
            plain["seconds"] = elapsed.total(nested, time.monotonic() - began)
            nested.write_json(SUMMARY, plain)
            elapsed.end(nested)
    return joined(run, {**summary, "time": times(run)}, plain)


def _settings(job: Job, run: RunDir) -> Settings:
    """Those of `nas baseline` with the recipe of the job, and with --time or the length of its last training."""
    steps, images = final_steps(job, run), len(job.data.train)
    epochs = None if job.plan.seconds or not steps else max(1, round(steps * job.lesson.config.batch_size / images))
    own: dict[str, Any] = {"space": AUTO, "set": (), "evaluate": ALONE, "trials": 1, "supernet": None, "epochs": None}
    return replace(job.settings, **own, finetune_epochs=epochs)


def joined(run: RunDir, summary: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """The summary of a run with its plain network, which takes the place of the searched one if it is better.

    That is if its accuracy is higher, or the same at lower cost.
    """
    aims, own, searched = run.config["objectives"], plain["best"], summary["best"]
    better = shortfall(own["metrics"]) < shortfall(searched["metrics"])
    wins = plain["verified"] and (better or not unbeaten([searched], own, aims))
    front = [*unbeaten(summary["front"], own, aims), *unbeaten([own], searched, aims)]
    front.sort(key=lambda row: row["metrics"].get(aims[0], 0.0))
    result = {**summary, "front": front, BASELINE: {"best": own, "budget": plain["budget"], "wins": wins}}
    if not wins:
        return result
    shutil.rmtree(run.path / BEST)
    shutil.copytree(run.path / BASELINE / BEST, run.path / BEST)
    nested = RunDir.read(run.path / BASELINE)
    # paths in the card are those of its folder
    write_card(run.path / BEST, plain, {**nested.config, "argv": run.config["argv"]}, nested.record(f"{BEST}/{VERIFY}"))
    taken = {name: value for name, value in plain.items() if name not in OF_THE_SEARCH}
    return {**result, **taken, "searched": {"best": summary["best"], "budget": summary["budget"]}}


def beside(summary: dict[str, Any]) -> str:
    """`searched 92.0%, plain 91.2% (1.92 MFLOPs) at the same budget`."""
    plain = summary[BASELINE]["best"]["metrics"]
    searched = summary.get("searched", summary)["best"]["metrics"]
    accuracies = (f"{row['test_accuracy']:.2%}" for row in (searched, plain))
    text = f"searched {next(accuracies)} test, plain {next(accuracies)} ({format_value('macs', plain['macs'])})"
    if summary[BASELINE]["wins"]:
        return f"{text} at the same budget: by the validation images the plain network is better, and is what best/ holds"
    return f"{text} at the same budget and training"
