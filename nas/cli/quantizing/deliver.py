"""From trials to the quantized network that is handed over: convert, export, verify, time, score the exported files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.export import load_onnx, write_files, write_format
from compress.quantize.bits import delivered_cost, is_real
from compress.quantize.convert import converted
from compress.quantize.saved import QUANTIZATION, reconverted, scheme_of
from compress.verify import INTEGER_TOLERANCE, VerifyInputs, verify
from nas.budget import Metric
from nas.cli.deliver import BEST, VERIFIED_IMAGES, network_row
from nas.cli.job import versions
from nas.cli.progress import log
from nas.cli.quantizing.clock import BF16, FP32, Clock
from nas.cli.quantizing.job import INT8, QuantizeJob
from nas.cli.quantizing.stages import Candidate, candidate_of, original_cost, simulated_of
from nas.cli.scoring import file_accuracy
from nas.cost.recount import recount
from nas.data.dataset import plain_batches
from nas.evaluation.supernet import prepared
from nas.latency.machine import device_name
from nas.report.card import model_card
from nas.rundir import RunDir
from nas.runtimes import named
from nas.torch_seeding import generator
from nas.trial import Trial

ONNX = f"{BEST}/model.onnx"
VERIFIED_WORK, FEWEST = 1e11, 8


def deliver_quantized(job: QuantizeJob, run: RunDir, clock: Clock, trials: Sequence[Trial]) -> dict[str, Any]:
    """Write and verify best/, and return the summary. Test data are read here, once, for the exported files."""
    trial = max(trials[1:], key=lambda t: (t.scores.get("val_accuracy", 0.0), t.number))
    candidate = candidate_of(run, trial)
    module = converted(simulated_of(job, candidate), job.network)
    log("writing and verifying the model files")
    times = _written(job, run, clock, candidate, module)
    scores, original = dict(trial.scores), dict(trials[0].scores)
    if job.data is not None:
        test = job.data.load_test()
        reference = clock.folder / "reference.onnx"
        _export_reference(job, reference)
        for name, path, found in (("the original", reference, original), ("the quantized file", run.path / ONNX, scores)):
            found["test_accuracy"] = file_accuracy(load_onnx(path), test, job.data, job.original.shape[1], f"scoring {name}")
    verdict = _verified(job, run, candidate, module, times)
    before = {**original_cost(job).values(), **original}
    if FP32 in times:
        before["latency_ms"] = times[FP32].value
    summary: dict[str, Any] = {
        "command": "quantize",
        "seed": job.settings.seed,
        "versions": versions(),
        "device": {"type": job.device.type, "name": device_name(job.device)},
        "data": {"name": job.data.name, "fingerprint": job.data.fingerprint} if job.data else {},
        "original": {"name": job.original.name, "metrics": before},
        "budget": verdict["budgets"],
        "verified": verdict["ok"],
        "best": {
            "key": trial.architecture.key,
            "architecture": trial.architecture.to_json(),
            "metrics": {**{n: m["value"] for n, m in verdict["metrics"].items()}, **scores},
        },
        "front": [network_row(t) for t in trials],
        "trials": len(trials),
        "quantization": {
            "layers": layer_rows(job, candidate),
            "precisions": _precisions(job, run, times, original, scores),
            "costly": clock.costly(run.path / ONNX) if INT8 in times else [],
        },
    }
    run.write_text(f"{BEST}/README.md", model_card(summary, run.config, verdict))
    return summary


def layer_rows(job: QuantizeJob, candidate: Candidate) -> list[dict[str, Any]]:
    """Each layer with its formats, its size, and what its format was told to cost."""
    scheme, losses = scheme_of(candidate.about), candidate.about["losses"]
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


def _written(job: QuantizeJob, run: RunDir, clock: Clock, candidate: Candidate, module: fx.GraphModule) -> dict[str, Metric]:
    """Write best/; returns the times of the file beside the original's, none where no runtime runs its formats."""
    folder = run.path / BEST
    about = {**candidate.about, "key": candidate.architecture.key, "simulated": not is_real(scheme_of(candidate.about))}
    described = {**candidate.architecture.to_json(), "key": candidate.architecture.key, "data": run.config["data"]}
    write_files(folder, module, described, verification_images(job)[:1])
    run.write_json(f"{BEST}/{QUANTIZATION}", about)
    if about["simulated"]:
        log("no integer kernel runs these formats: accuracy, size and bit operations are told, a time is not")
        return {}
    return clock.side_by_side(folder / f"model{named(job.bench.name).suffix}")


def _export_reference(job: QuantizeJob, path: Path) -> None:
    module: nn.Module = job.original.module.cpu().to(memory_format=torch.contiguous_format)
    write_format("onnx", module.eval(), torch.zeros(1, *job.original.shape), path)


def _verified(
    job: QuantizeJob, run: RunDir, candidate: Candidate, module: fx.GraphModule, times: Mapping[str, Metric]
) -> dict[str, Any]:
    """Reload, recount and judge; returns and writes the content of verify.json."""
    planned = delivered_cost(job.network, scheme_of(candidate.about), run.path / ONNX, original_cost(job))
    reference = original_cost(job)
    if FP32 in times:
        reference = replace(reference, metrics={**reference.metrics, "latency_ms": times[FP32]})
    inputs = VerifyInputs(
        folder=run.path / BEST,
        module=module,
        rebuild=lambda: reconverted(job.network, candidate.about),
        images=verification_images(job),
        plan_cost=planned,
        budgets=tuple(budget.resolve(reference) for budget in job.budgets),
        latency=times.get(INT8),
        # integers have no multiply-adds that fvcore could follow: those of the same layers in floating point are counted
        recount=lambda _, image: recount(job.network.module, image),
        tolerance=INTEGER_TOLERANCE,
        stored=planned.metrics["size_bytes"],
    )
    verdict = verify(inputs)
    verdict["original"] = {name: vars(times[name]) for name in times if name != INT8}
    run.write_json(f"{BEST}/verify.json", verdict)
    return verdict


def verification_images(job: QuantizeJob) -> Tensor:
    """Normalized validation images on the CPU, or noise where there are no data."""
    macs = original_cost(job).values()["macs"]
    wanted = int(max(FEWEST, min(VERIFIED_IMAGES, VERIFIED_WORK / macs)))
    if job.data is None:
        return torch.randn(wanted, *job.original.shape, generator=generator(0, "images"))
    batches, cpu = plain_batches(len(job.data.val), wanted)[:1], torch.device("cpu")
    return next(x for x, _ in prepared(job.data.val, batches, job.data, job.data.resolution, cpu)).contiguous()


# -- what is told


def _precisions(
    job: QuantizeJob, run: RunDir, times: Mapping[str, Metric], before: Mapping[str, float], after: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The network at each precision: time in one runtime, accuracy of the exported file, size of the file."""
    simulated = INT8 not in times
    label = job.settings.precision
    sizes = {FP32: original_cost(job).values()["size_bytes"], label: (run.path / ONNX).stat().st_size}
    rows = []
    for name, timed, scores in ((FP32, FP32, before), (BF16, BF16, {}), (label, INT8, after)):
        metric = times.get(timed)
        note = "" if metric or name != BF16 else f"{job.bench.name} has no bf16 on this processor"
        rows.append(
            {
                "precision": name,
                "latency_ms": metric.value if metric else None,
                "latency_spread": metric.spread if metric else None,
                "test_accuracy": scores.get("test_accuracy"),
                "size_bytes": sizes.get(name),
                "simulated": simulated and name == label,
                "note": note,
            }
        )
    return rows
