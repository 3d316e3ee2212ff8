"""The work of `nas extract`: one network of a run goes the way that the best one went."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.export import ARCHITECTURE
from nas import files
from nas.architecture import Architecture
from nas.cli import deliver
from nas.cli.existing import trial_of
from nas.cli.job import configuration, make_job
from nas.cli.keys import key_of
from nas.cli.progress import log
from nas.cli.pruning import deliver as pruned
from nas.cli.pruning.clock import Clock
from nas.cli.pruning.job import make_prune_job, prune_configuration
from nas.cli.pruning.settings import PruneSettings
from nas.cli.quantizing import deliver as quantized
from nas.cli.quantizing.clock import Clock as QuantizeClock
from nas.cli.quantizing.job import make_quantize_job, quantize_configuration
from nas.cli.quantizing.settings import QuantizeSettings
from nas.cli.running import failures, refuse_changes
from nas.cli.scoring import shown, with_errors
from nas.cli.settings import Settings, command_line, of_run
from nas.cli.stages import alone, loaded_supernet
from nas.errors import CorruptRun, InvalidSetting, VerificationFailed
from nas.evaluation import NetworkEvaluator
from nas.evaluation.supernet import SupernetEvaluator
from nas.report.contents import BASELINE
from nas.report.passes import COMPRESS, pass_runs
from nas.report.picture import PICTURE, front_picture
from nas.rundir import TRIALS, RunDir
from nas.training.loop import Checkpoints
from nas.trial import Trial

EXTRACTED, SUMMARY = "extracted", "summary.json"
TOLD = {"macs": "(multiply-adds)", "params": "", "latency_ms": "", "val_accuracy": "validation", "test_accuracy": "test"}


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    run: Path
    key: str
    out: Path | None = None
    device: str | None = None
    data: str | None = None


Json = dict[str, Any]


def run_extract(wanted: Wanted, as_json: bool) -> None:
    """The whole of `nas extract`. Raises InvalidSetting for what cannot be delivered, VerificationFailed."""
    began, command = time.monotonic(), RunDir.read(wanted.run).config.get("command")
    if command not in (*EXTRACTORS, COMPRESS):
        known = " or ".join(f"nas {name}" for name in (*EXTRACTORS, COMPRESS))
        raise InvalidSetting(
            f"{str(wanted.run)!r} is a run of nas {command}, which has no networks to choose from; give one of {known}"
        )
    # a folder elsewhere leaves the run as it is
    with RunDir.read(wanted.run) if wanted.out else RunDir.open(wanted.run) as run:
        made, record = _evaluated(run, wanted.key)
        folder = wanted.out or run.path / EXTRACTED / record["key"]
        if wanted.out:
            _check_free(wanted.out)
        folder.parent.mkdir(parents=wanted.out is not None, exist_ok=True)
        log(f"network {record['key']} of {run.path}")
        try:
            summary, verdict = EXTRACTORS[made.config["command"]](made, record, folder, wanted)
        except BaseException:
            with suppress(OSError):  # it holds other networks
                folder.parent.rmdir()
            raise
        summary |= {"run": str(run.path), "front": _delivered(run).get("front", []), "trials": len(made.trials())}
        summary["seconds"] = round(time.monotonic() - began, 1)
        summary = with_errors(summary, made.config)
        _describe(made, folder, summary, verdict)
    _announce(folder, summary, verdict)
    if as_json:
        print(json.dumps({**summary, "folder": str(folder)}))
    if not summary["verified"]:
        raise VerificationFailed(f"the network in {folder} does not hold what the run promises: {'; '.join(failures(verdict))}")


# -- by command


def _of_search(run: RunDir, record: Json, folder: Path, wanted: Wanted) -> tuple[Json, Json]:
    """Extract from the supernet that the run trained, or searched."""
    job = make_job(of_run(run, Settings, wanted.device, wanted.data), run.path, plain=run.config["command"] == BASELINE)
    refuse_changes(run, configuration(job, run.config["command"]))
    trial = Trial.from_json(record, job.space.from_json(record["architecture"]))
    if job.plan.shared:
        supernet = loaded_supernet(job, Path(job.settings.supernet or run.path))
        evaluator: NetworkEvaluator = SupernetEvaluator(supernet, job.data, job.settings.seed)
    else:
        evaluator = alone(job)
    handed, verdict = deliver.hand_over(job, run, evaluator, trial, folder, Checkpoints())
    return {**deliver.header(job, "extract"), **handed}, verdict


def _of_prune(run: RunDir, record: Json, folder: Path, wanted: Wanted) -> tuple[Json, Json]:
    """Take what the pruning kept of the network, timed beside the original."""
    job = make_prune_job(of_run(run, PruneSettings, wanted.device, wanted.data))
    refuse_changes(run, prune_configuration(job))
    with tempfile.TemporaryDirectory() as aside:
        handed, verdict = pruned.hand_over(job, run, Clock(job, Path(aside)), trial_of(record), folder)
    original = trial_of(run.trials()[0])
    original = replace(original, scores=_original_scores(run))
    row = pruned.original_row(job, original, verdict)
    return {**deliver.header(job, "extract"), "original": row, **handed, "unchanged": record["number"] == 0}, verdict


def _of_quantize(run: RunDir, record: Json, folder: Path, wanted: Wanted) -> tuple[Json, Json]:
    """Convert what the run kept of the network, or its original, timed beside that."""
    job = make_quantize_job(of_run(run, QuantizeSettings, wanted.device, wanted.data))
    refuse_changes(run, quantize_configuration(job))
    with tempfile.TemporaryDirectory() as aside:
        clock = QuantizeClock(job, Path(aside))
        handed, verdict = quantized.hand_over(job, run, clock, trial_of(record), folder)
        before = quantized.original_row(job, _original_scores(run), verdict)
        summary = {**deliver.header(job, "extract"), "original": before, **handed, "unchanged": record["number"] == 0}
        if not summary["unchanged"]:
            summary["quantization"] = quantized.quantization_of(clock, folder, summary, verdict)
    return summary, verdict


EXTRACTORS: dict[str, Callable[[RunDir, Json, Path, Wanted], tuple[Json, Json]]] = {
    "search": _of_search,
    "baseline": _of_search,
    "prune": _of_prune,
    "quantize": _of_quantize,
}


# -- parts


def _delivered(run: RunDir) -> Json:
    """The summary of the run, empty as long as it has not ended."""
    return run.record_if_there(SUMMARY)


def _original_scores(run: RunDir) -> dict[str, float]:
    """What is known of the accuracy of the original; its test accuracy is that of the run, which has read the images."""
    before = _delivered(run).get("original", {}).get("metrics", {})
    tested = {name: value for name, value in before.items() if name == "test_accuracy"}
    return {**run.trials()[0]["scores"], **tested}


def _describe(run: RunDir, folder: Path, summary: Json, verdict: Json) -> None:
    """Write the model card, the picture that it shows, and the summary."""
    config = {**run.config, "argv": f"{run.config.get('argv', '')} && {command_line()}"}
    deliver.write_card(folder, summary, config, verdict)
    if picture := front_picture(summary):
        files.replace(folder / PICTURE, files.utf8(picture))
    files.replace(folder / SUMMARY, files.to_json(summary))


def _evaluated(run: RunDir, text: str) -> tuple[RunDir, Json]:
    """The run that made a network, which of `nas compress` is one of its passes, and the record. Raises InvalidSetting.

    Its accuracy is known, or it was made without data.
    """
    compressed = run.config["command"] == COMPRESS
    runs = [RunDir.read(folder) for folder in pass_runs(run.path)] if compressed else [run]
    # a fine-tune has the keys of the prune before it: what came last is what was handed on
    found = {record["key"]: (made, record) for made in runs for record in reversed(made.trials())}
    if not any(record["state"] == "complete" for _, record in found.values()):
        raise InvalidSetting(
            f"{str(run.path)!r} has no network to extract: none of its {len(found)} trials was evaluated; let the run go on"
        )
    made, record = found[key_of(str(run.path), found, text)]
    stored = record["architecture"]
    if record["state"] == "complete" and Architecture(stored["space"], stored["choices"]).key != record["key"]:
        raise CorruptRun(f"the key {record['key']} in {made.path / TRIALS} is not that of its architecture; restore the file")
    if record["state"] != "complete":
        raise InvalidSetting(
            f"network {record['key']} is {record['state']} ({record['error']}); extract one that was evaluated, such as those "
            "of front.csv"
        )
    return made, record


def _check_free(folder: Path) -> None:
    """Raise InvalidSetting for a file, or a folder with something else than an earlier extraction."""
    if folder.exists() and not folder.is_dir():
        raise InvalidSetting(f"--out {str(folder)!r} is a file; choose another --out")
    held = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
    if held and ARCHITECTURE not in held:
        raise InvalidSetting(f"--out {str(folder)!r} holds files ({held[0]}); choose another --out")


def _announce(folder: Path, summary: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
    metrics = summary["best"]["metrics"]
    numbers = ", ".join(f"{shown(summary['best'], name)} {said}".strip() for name, said in TOLD.items() if name in metrics)
    budgets = (f"; {row['text']} {'kept' if row['ok'] else 'BROKEN'}" for row in verdict["budgets"])
    log(f"network {summary['best']['key']}: {numbers}{''.join(budgets)}")
    log(f"files in {folder}")
