"""From trials to the quantized network that is handed over: convert, export, verify, time, score the exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from compress.agreement import INTEGER_TOLERANCE, TOLERANCE
from compress.export import write_files
from compress.quantize.bits import delivered_cost, is_real
from compress.quantize.convert import converted
from compress.quantize.formats import FLOAT
from compress.quantize.saved import QUANTIZATION, read_about, reconverted, scheme_of
from compress.quantize.scheme import Scheme, uniform
from compress.quantize.simulate import simulated
from compress.verify import VerifyInputs, verify
from nas import files
from nas.architecture import Architecture
from nas.budget import Metric
from nas.cli.checking import comparison_images
from nas.cli.deliver import BEST, VERIFIED_IMAGES, VERIFY, delivered_row, header, network_row, write_card
from nas.cli.progress import log
from nas.cli.quantized import in_integers
from nas.cli.quantizing.clock import BF16, FP32, Clock
from nas.cli.quantizing.job import COMPARED, INT8, MIXED, QuantizeJob
from nas.cli.quantizing.stages import candidate_of, original_cost, simulated_of
from nas.cli.quantizing.where import costly_of, where_of
from nas.cli.scoring import accuracy_of, file_answers, opened_in, scored_in, scores_row
from nas.cost.recount import recount
from nas.evaluation.answers import Answers
from nas.report.portable import near_values
from nas.rundir import RunDir
from nas.runtimes import named
from nas.trial import Trial

ONNX = "model.onnx"
VERIFIED_WORK, FEWEST = 1e11, 8


@dataclass(frozen=True)
class Stored:
    """The network of a trial; `about` is the content of its quantization.json, `module` has its integers."""

    architecture: Architecture
    about: Mapping[str, Any]
    module: fx.GraphModule

    @property
    def scheme(self) -> Scheme:
        """The formats of its layers."""
        return scheme_of(self.about)

    @property
    def rounds(self) -> bool:
        """Whether anything of it is rounded."""
        return {*self.scheme.weights.values(), *self.scheme.inputs.values(), self.scheme.others} != {FLOAT}


def deliver_quantized(job: QuantizeJob, run: RunDir, clock: Clock, trials: Sequence[Trial]) -> dict[str, Any]:
    """Write and verify best/, and return the summary. Test data are read here, once, for the exported files."""
    trial, folder = max(trials[1:], key=lambda t: (t.scores.get("val_accuracy", 0.0), t.number)), run.path / BEST
    before = {**trials[0].scores, **accuracy_of(_tested(job, clock.of_original(), "the original"))}
    handed, verdict = hand_over(job, run, clock, trial, folder)
    summary: dict[str, Any] = {
        **header(job, "quantize"),
        "original": original_row(job, before, verdict),
        **handed,
        "front": [network_row(t) for t in _weighed(trials, verdict)],
        "trials": len(trials),
    }
    summary["quantization"] = quantization_of(clock, folder, summary, verdict)
    write_card(folder, summary, run.config, verdict)
    return summary


def _weighed(trials: Sequence[Trial], verdict: Mapping[str, Any]) -> list[Trial]:
    """The trials with the size of the delivered file: all but the original have its formats."""
    size = Metric(**verdict["metrics"]["size_bytes"])
    rounded = (replace(t, cost=replace(t.cost, metrics={**t.cost.metrics, "size_bytes": size})) for t in trials[1:])
    return [trials[0], *rounded]


def hand_over(job: QuantizeJob, run: RunDir, clock: Clock, trial: Trial, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the network of a trial, the original among them, into `folder` and verify it there. Test data are read here.

    Returns what the summary has of it, and the content of verify.json.
    """
    stored = _stored(job, run, trial)
    log("writing and verifying the model files")
    times = _written(job, run, clock, stored, folder)
    test = _tested(job, folder / ONNX, "the delivered file")
    scores = {**trial.scores, **accuracy_of(test)}
    verdict = _verified(job, stored, times, folder)
    return {**delivered_row(trial.architecture, verdict, scores), **scores_row(job.data, scores, test)}, verdict


def original_row(job: QuantizeJob, scores: Mapping[str, float], verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary has of the original in fp32, timed beside the delivered file where that was."""
    metrics = {**original_cost(job).values(), **scores}
    if FP32 in verdict["original"]:
        metrics["latency_ms"] = verdict["original"][FP32]["value"]
    return {"name": job.original.name, "metrics": metrics}


def quantization_of(clock: Clock, folder: Path, summary: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary says of the quantized network of `folder`: its layers, the precisions side by side, the costly layers."""
    ran = clock.ran(folder / ONNX) if "latency_ms" in verdict["metrics"] else []
    return {
        "layers": layer_rows(clock.job, read_about(folder)),
        "precisions": _precisions(clock, folder, summary, verdict),
        "costly": costly_of(ran, clock.job.network) if ran else [],
        "where": where_of(ran, clock.job.network),
    }


def layer_rows(job: QuantizeJob, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each layer with its formats, its size, and what its format was told to cost."""
    scheme, losses = scheme_of(about), about["losses"]
    return [
        {
            "name": layer.name,
            "weight_bits": scheme.weights[layer.name],
            "activation_bits": scheme.of_point(job.network, layer.source),
            "params": layer.params,
            "macs": layer.macs,
            "sensitivity": losses.get(layer.name, {}).get(scheme.weights[layer.name]),
        }
        for layer in job.network.layers
    ]


# -- files


def _stored(job: QuantizeJob, run: RunDir, trial: Trial) -> Stored:
    """The network of a trial: as it was kept, or the original, which nothing rounds."""
    if trial.number > 0:
        candidate = candidate_of(run, trial)
        about = {**candidate.about, "packed": job.settings.precision == MIXED}
        integers = converted(simulated_of(job, candidate), job.network, verification_images(job)[:COMPARED])
        return Stored(trial.architecture, about, integers)
    scheme = replace(uniform(job.network, FLOAT, FLOAT), others=FLOAT)
    source = {"source": dict(job.original.source), "shape": list(job.original.shape)}
    about = {**source, "scheme": scheme.to_json(), "losses": {}, "points": {}, "packed": False}
    return Stored(trial.architecture, about, converted(simulated(job.network, scheme), job.network))


def _written(job: QuantizeJob, run: RunDir, clock: Clock, stored: Stored, folder: Path) -> dict[str, Metric]:
    """Write the files; returns the times of the file beside the original's, none where no runtime runs its formats."""
    about = {**stored.about, "key": stored.architecture.key, "simulated": not is_real(stored.scheme)}
    described = {
        **stored.architecture.to_json(),
        "key": stored.architecture.key,
        "data": near_values(run.config["data"], folder),
    }
    write_files(folder, stored.module, described, verification_images(job)[:1])
    files.replace(folder / QUANTIZATION, files.to_json(about))
    if about["simulated"]:
        log("no integer kernel runs these formats: accuracy, size and bit operations are told, a time is not")
        return {}
    return clock.side_by_side(folder / f"model{named(job.bench.name).suffix}")


def _tested(job: QuantizeJob, path: Path, name: str, precision: str = FP32) -> Answers | None:
    """What an exported file answers on the test images, in a precision of its runtime; nothing without data."""
    if job.data is None:
        return None
    test, side = job.data.load_test(), job.original.shape[1]
    run = opened_in(job.bench.name, path, precision)
    return file_answers(run, test, job.data, side, f"scoring {name} in {scored_in(job.bench.name)}")


def _verified(job: QuantizeJob, stored: Stored, times: Mapping[str, Metric], folder: Path) -> dict[str, Any]:
    """Reload, recount and judge; returns and writes the content of verify.json."""
    reference = original_cost(job)
    planned = delivered_cost(job.network, stored.scheme, folder / ONNX, reference, stored.about["packed"])
    if FP32 in times:
        reference = replace(reference, metrics={**reference.metrics, "latency_ms": times[FP32]})
    plain = VerifyInputs(
        folder=folder,
        module=stored.module,
        rebuild=lambda: reconverted(job.network, stored.about),
        images=verification_images(job),
        plan_cost=planned,
        budgets=tuple(budget.resolve(reference) for budget in job.budgets),
        latency=times.get(INT8),
        recount=recount,
    )
    tolerance = INTEGER_TOLERANCE if stored.rounds else TOLERANCE
    verdict = verify(in_integers(plain, job.network, planned.metrics["size_bytes"], tolerance))
    verdict["original"] = {name: vars(times[name]) for name in times if name != INT8}
    files.replace(folder / VERIFY, files.to_json(verdict))
    return verdict


def verification_images(job: QuantizeJob) -> Tensor:
    """Normalized validation images on the CPU, or noise where there are no data."""
    macs = original_cost(job).values()["macs"]
    wanted = int(max(FEWEST, min(VERIFIED_IMAGES, VERIFIED_WORK / macs)))
    return comparison_images(job.data, wanted, job.original.shape)


# -- what is told


def _precisions(clock: Clock, folder: Path, summary: Mapping[str, Any], verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The network at each precision: time in one runtime, accuracy of the exported file, size of the file."""
    job = clock.job
    times: Mapping[str, Any] = {**verdict["original"], INT8: verdict["metrics"].get("latency_ms")}
    label = job.settings.precision
    before, after = summary["original"]["metrics"], summary["best"]["metrics"]
    # what is timed in bf16 is the file of the original
    between = accuracy_of(_tested(job, clock.of_original(), "the original in bf16", BF16) if times.get(BF16) else None)
    sizes = {FP32: clock.of_original().stat().st_size, label: (folder / ONNX).stat().st_size}
    rows = []
    for name, timed, scores in ((FP32, FP32, before), (BF16, BF16, between), (label, INT8, after)):
        metric = times.get(timed)
        note = "" if metric or name != BF16 else f"{job.bench.name} has no bf16 on this processor"
        rows.append(
            {
                "precision": name,
                "latency_ms": metric["value"] if metric else None,
                "latency_spread": metric["spread"] if metric else None,
                "test_accuracy": scores.get("test_accuracy"),
                "size_bytes": sizes.get(name),
                "simulated": name == label and times[INT8] is None,
                "note": note,
            }
        )
    return rows
