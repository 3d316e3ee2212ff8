"""The work of `nas compress`: each pass is a run of its own, and a bound that breaks stops the chain."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from compress.export import write_format
from compress.more_formats import EXPORTS
from compress.stored import written_aside
from compress.verify import digests
from nas.budget import Metric
from nas.cli.continuing import fine_tune_in
from nas.cli.errors import Interrupted
from nas.cli.existing import check_training
from nas.cli.exporting import Wanted, run_export
from nas.cli.job import versions
from nas.cli.places import PLACES
from nas.cli.progress import log
from nas.cli.pruning import checking as pruning
from nas.cli.pruning.flow import prune_in
from nas.cli.quantizing import job as quantizing
from nas.cli.quantizing.flow import quantize_in
from nas.cli.recipe import FINE_TUNE, ExportSettings, Recipe, Step, at_places, read_recipe, recipe_places
from nas.cli.running import concluded, working
from nas.cli.settings import command_line
from nas.cli.sources import build, shape_of
from nas.cli.trust import naming
from nas.errors import InvalidSetting, NasError, VerificationFailed, not_known
from nas.latency.bench import bench_at
from nas.latency.machine import device_name
from nas.latency.target import Target
from nas.report.contents import VERIFY
from nas.report.passes import LOG, PASSES, networks_so_far, pass_runs
from nas.report.words import show
from nas.report.write import DIGEST, PAGE, write_report
from nas.rundir import RunDir, latest
from nas.torch_seeding import generator

BEST = "best"
SHOWN = {"val_accuracy": " validation", "test_accuracy": " test", "macs": "", "size_bytes": "", "latency_ms": ""}
Metrics = Mapping[str, float]
_RUNNERS: Mapping[str, Callable[[Path, Any, Path | None, bool], None]] = {
    "prune": prune_in,
    FINE_TUNE: fine_tune_in,
    "quantize": quantize_in,
}


@dataclass(frozen=True)
class Asked:
    """What the user asked for."""

    network: str
    recipe: Path | None
    out: Path | None
    resume: bool
    json: bool
    data: str | None = None


def run_compress(asked: Asked) -> None:
    """The whole of `nas compress`. Raises VerificationFailed where a bound breaks, and what the passes raise."""
    began = time.monotonic()
    resumed = (asked.out or latest("compress")) if asked.resume else None
    recipe = _stored_recipe(resumed, asked) if asked.resume else _asked_recipe(asked)
    named = [] if asked.recipe is None else [recipe.network]  # a recipe that the user names is what the user says
    with naming(named), working(_configuration(recipe), resumed, asked.out) as run:
        for number, step in enumerate(recipe.steps, 1):
            _pass(run, recipe, number, step)
        summary = _summary(run)
        summary["seconds"] = round(time.monotonic() - began, 1)
        concluded(run, summary, _announce, asked.json)


def _check(recipe: Recipe) -> None:
    """Raise what the passes would raise of their settings, before the first one runs."""
    for number, step in enumerate(recipe.steps, 1):
        try:
            if step.name == "export" and number == 1:
                raise InvalidSetting("it is the first pass; use nas export for a network that no pass has changed")
            settings = step.settings(recipe.network, recipe.weights)
            _CHECKS[step.name](settings)
            if step.name in _GIVEN:  # what the recipe says of all passes may be nothing to one of them
                _GIVEN[step.name](settings, step.own)
        except NasError as error:
            raise type(error)(f"pass {number} ({step.name}) of the recipe: {error}") from error


def _check_export(settings: ExportSettings) -> None:
    if settings.format not in EXPORTS:
        raise InvalidSetting(f"format {not_known(settings.format, EXPORTS)}")


_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "prune": pruning.check_settings,
    FINE_TUNE: check_training,
    "quantize": quantizing.check_settings,
    "export": _check_export,
}
_GIVEN: Mapping[str, Callable[[Any, Collection[str]], None]] = {
    "prune": pruning.check_given,
    "quantize": quantizing.check_given,
}


# -- passes


def _pass(run: RunDir, recipe: Recipe, number: int, step: Step) -> None:
    """Do what is left of a pass, note what came of it, and judge its bounds."""
    row = next((line for line in run.read_lines(LOG) if line["number"] == number), None)
    if row is None:
        log(f"pass {number} of {len(recipe.steps)}: {step.name}")
        metrics, seconds = _exported(run, step) if step.name == "export" else _ran(run, recipe, number, step)
        row = {"number": number, "name": step.name, "metrics": metrics, "seconds": round(seconds, 1)}
        broken = _broken(run, step, metrics)
        row |= {"ok": not broken, "broken": broken}
        run.append_line(LOG, row)
    if row["broken"]:
        kept = f"what was made so far is in {run.path}/{PASSES}"
        raise VerificationFailed(f"pass {number} ({step.name}) breaks its bound: {row['broken']}; {kept}")


def _ran(run: RunDir, recipe: Recipe, number: int, step: Step) -> tuple[dict[str, float], float]:
    """Run a pass in its folder, or resume it.

    Returns its metrics, times as the first original's clock would tell them, and its seconds in all processes.
    """
    folder = run.path / PASSES / f"{number}-{step.name}"
    before = _last(run)
    network, weights = (str(before), None) if before else (recipe.network, recipe.weights)
    if not (folder / "summary.json").is_file():
        started = (folder / "config.json").is_file()
        try:
            _RUNNERS[step.name](folder, step.settings(network, weights), folder if started else None, False)
        except Interrupted:
            raise KeyboardInterrupt from None  # the chain is what is resumed
    elif not all((folder / name).is_file() for name in (PAGE, DIGEST)):  # of older versions
        write_report(RunDir.read(folder))
    summary = _summary_of(folder)
    found = dict(summary["best"]["metrics"])
    lines = run.read_lines(LOG)
    if not lines:
        original = {"number": 0, "name": "original", "metrics": summary["original"]["metrics"], "seconds": 0.0}
        run.append_line(LOG, {**original, "ok": True, "broken": "", "network": summary["original"]["name"]})
    elif "latency_ms" in found and "latency_ms" in summary["original"]["metrics"]:
        share = found["latency_ms"] / summary["original"]["metrics"]["latency_ms"]
        # a fine-tune has the original of the prune before it
        found["latency_ms"] = share * lines[-2 if step.name == FINE_TUNE else -1]["metrics"]["latency_ms"]
    return found, float(summary.get("seconds", 0.0))


def _exported(run: RunDir, step: Step) -> tuple[dict[str, float], float]:
    """Write the network of the last pass in another format into best/; returns its metrics, and the seconds that it took."""
    start, before, name = time.monotonic(), _last(run), step.options.get("format", "onnx")
    assert before is not None
    path = run.path / BEST / f"model{EXPORTS[name].suffix}"
    path.parent.mkdir(exist_ok=True)
    run_export(Wanted(str(before), name, None, None, None, path), as_json=False)
    return dict(run.read_lines(LOG)[-1]["metrics"]), time.monotonic() - start


def _broken(run: RunDir, step: Step, metrics: Mapping[str, float]) -> str:
    """What is wrong with a pass, in words; empty where its bounds hold. Unknown is broken."""
    original = run.read_lines(LOG)[0]["metrics"]
    if (limit := step.bounds.get("max_drop")) is not None:
        if "val_accuracy" not in metrics:
            return "max_drop needs data, and there are none"
        drop = 100 * (original["val_accuracy"] - metrics["val_accuracy"])
        if drop > limit:
            return f"{drop:.2f} points of validation accuracy are lost, and max_drop is {limit:g}"
    if (limit := step.bounds.get("min_speedup")) is not None:
        if "latency_ms" not in metrics:
            return "min_speedup needs a time, and none was taken"
        speedup = original["latency_ms"] / metrics["latency_ms"]
        if speedup < limit:
            return f"{speedup:.2f}x as fast as the original, and min_speedup is {limit:g}"
    return ""


def _last(run: RunDir) -> Path | None:
    """The folder of the last pass that delivered a network."""
    done = [line for line in run.read_lines(LOG) if line["name"] in _RUNNERS]
    return run.path / PASSES / f"{done[-1]['number']}-{done[-1]['name']}" if done else None


# -- what is told


def _summary(run: RunDir) -> dict[str, Any]:
    """Copy the last network to best/, time it beside the original, and put all passes together."""
    folder = _last(run)
    assert folder is not None
    with written_aside(run.path / BEST) as aside:
        for path in sorted((folder / BEST).iterdir()):
            if path.is_file():
                shutil.copy2(path, aside / path.name)
    if verdict := dict(run.record_if_there(VERIFY)):  # what a pass exported is delivered, too
        run.write_json(VERIFY, {**verdict, "files": digests(run.path / BEST)})
    last, rows = _summary_of(folder), run.read_lines(LOG)
    original, best = dict(rows[0]["metrics"]), {**last["best"], "metrics": dict(rows[-1]["metrics"])}
    times = _side_by_side(run, folder)
    for metrics, name in ((original, "original"), (best["metrics"], "final")):
        if name in times:
            metrics["latency_ms"] = times[name].value
    summaries, found = [_summary_of(path) for path in pass_runs(run.path)], networks_so_far(run)
    names = ("seed", "versions", "device", "data")
    summary = {
        "command": "compress",
        **{name: last[name] for name in names},
        "original": {"name": rows[0]["network"], "metrics": original},
        "budget": last["budget"],
        "verified": all(one["verified"] for one in summaries) and all(row["ok"] for row in rows),
        "best": best,
        # the original and the network of each pass, with times as the first original's clock would tell them
        "front": [{**found[0], "metrics": original}, *found[1:-1], best],
        "trials": len(summaries),
        "timed": {name: metric.context for name, metric in times.items()},
        "passes": [{key: row[key] for key in ("name", "metrics", "seconds", "ok")} for row in rows],
    }
    return {**summary, **{name: last[name] for name in ("quantization", "scores") if name in last}}


def _side_by_side(run: RunDir, folder: Path) -> dict[str, Metric]:
    """Times of the first original in fp32 and of the last file, interleaved; none on another machine or without a file."""
    config = RunDir.read(folder).config
    target = Target(**config["target"])
    bench = bench_at(target)
    if (
        bench is None
        or not (folder / BEST / "model.onnx").is_file()
        or "latency_ms" not in _summary_of(folder)["best"]["metrics"]
    ):
        return {}
    source = RunDir.read(pass_runs(run.path)[0]).config["space"]["settings"]
    example = torch.randn(target.batch, *shape_of(source), generator=generator(0, "images"))
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / "original.onnx"
        write_format("onnx", build(source).eval(), example[:1], path)  # weights do not matter for the time
        cases = {"original": (path, "fp32"), "final": (folder / BEST / "model.onnx", target.precision)}
        return {name: timing.metric for name, timing in bench.time_cases(cases, example).items()}


def _announce(run: RunDir, summary: dict[str, Any]) -> None:
    for row in summary["passes"]:
        told = ", ".join(f"{show(n, row['metrics'][n])}{SHOWN[n]}" for n in SHOWN if n in row["metrics"])
        log(f"  {row['name']:<10} {told}")
    before, after = (summary[n]["metrics"].get("latency_ms") for n in ("original", "best"))
    if before and after:
        both = f"{show('latency_ms', before)} -> {show('latency_ms', after)}"
        log(f"original and last file side by side: {both} ({after / before:.1%})")


def _summary_of(folder: Path) -> dict[str, Any]:
    return RunDir.read(folder).record("summary.json")


# -- what was asked for


def _asked_recipe(asked: Asked) -> Recipe:
    if asked.data is not None and not asked.resume:
        raise InvalidSetting(f"--data {asked.data!r} is for --resume; name the data in the recipe")
    if asked.recipe is None:
        raise InvalidSetting("no recipe was given; name one: nas compress --recipe recipe.toml (nas compress --help shows one)")
    recipe = read_recipe(asked.recipe, asked.network)
    _check(recipe)
    return recipe


def _stored_recipe(resumed: Path | None, asked: Asked) -> Recipe:
    if resumed is None:
        raise InvalidSetting("--resume found no run of `nas compress` in runs/; name one with --out")
    stored = RunDir.read(resumed).config
    if stored.get("command") != "compress":
        raise InvalidSetting(f"{resumed} is a run of `nas {stored.get('command')}`, not of `nas compress`")
    if asked.recipe is not None and _asked_recipe(asked) != _recipe(stored["recipe"]):
        raise InvalidSetting(
            f"{asked.recipe} is not the recipe that {resumed} was started with; drop --recipe, or start a new run"
        )
    return at_places(_recipe(stored["recipe"]), stored.get(PLACES), asked.data)


def _recipe(stored: Mapping[str, Any]) -> Recipe:
    steps = tuple(
        Step(s["name"], {k: tuple(v) if isinstance(v, list) else v for k, v in s["options"].items()}, s["bounds"])
        for s in stored["steps"]
    )
    return Recipe(stored["network"], stored["weights"], steps)


def _configuration(recipe: Recipe) -> dict[str, Any]:
    """The content of config.json."""
    value = {
        "command": "compress",
        "argv": command_line(),
        "options": {"network": recipe.network},
        "recipe": asdict(recipe),
        "versions": versions(),
        "device": {"type": "cpu", "name": device_name(torch.device("cpu"))},
        "budgets": [],
        "objectives": ["latency_ms"],
        "space": {"name": f"compress:{recipe.network}", "version": 1, "settings": {}},
        "data": {},
        PLACES: recipe_places(recipe),
    }
    return json.loads(json.dumps(value))
