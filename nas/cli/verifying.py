"""The work of `nas verify`: the network of best/ is rebuilt from its files, and every claim of the run is taken again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from compress.export import FORMATS, write_format
from compress.prune.saved import read_source
from compress.quantize.bits import delivered_cost
from compress.quantize.graph import Network
from compress.quantize.saved import scheme_of
from compress.stored import WEIGHTS, load_weights
from compress.verify import VERDICT, VerifyInputs, digests, verify
from nas.budget import Budget, Cost, Metric
from nas.cli.progress import log
from nas.cli.quantized import in_integers, is_quantized, read_quantized
from nas.cli.running import data_of
from nas.cli.scoring import file_answers, opened_in, scored_in
from nas.cli.sources import BEST_FOLDER, architecture_of, build, is_pruned, rebuilt, shape_of
from nas.cost.measure import BUSY
from nas.cost.recount import recount
from nas.data.dataset import Dataset
from nas.errors import InvalidData, InvalidSetting, VerificationFailed
from nas.latency.bench import Bench, bench_at
from nas.latency.target import Target
from nas.report.passes import last_run
from nas.report.words import plain, show
from nas.rundir import RunDir
from nas.runtimes import named
from nas.torch_seeding import generator

IMAGES = 64
# the share of test images whose class may differ from what the run counted: sums are ordered differently elsewhere
SCORE_TOLERANCE = 0.001
# a time that was taken again may be so much longer than the one that was claimed
TIME_TOLERANCE = 0.1


@dataclass(frozen=True)
class Rounded:
    """What is quantized: the network in floating point, which is counted, the size that was promised, and whether it is real.

    No time is told of what is simulated.
    """

    network: Network
    stored: Metric
    simulated: bool


@dataclass(frozen=True)
class Delivered:
    """What a run has delivered: the network of its files, and what it claimed of it.

    `original` builds the network that it was made of, None where there is none.
    """

    run: RunDir
    summary: Mapping[str, Any]
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    original: Callable[[], nn.Module] | None = None
    rounded: Rounded | None = None

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.run.path / "best"

    @property
    def claimed(self) -> dict[str, float]:
        """The metrics that the run reported."""
        return dict(self.summary["best"]["metrics"])


def run_verify(path: Path, score: bool, as_json: bool, data: str | None = None) -> None:
    """The whole of `nas verify`. Raises InvalidSetting for what is no finished run, VerificationFailed."""
    last = last_run(path)
    if last != path:
        ended = "" if (path / "summary.json").is_file() else "; the chain itself did not end"
        log(f"the last pass is verified: {last}{ended}")
    rows, budgets = _file_checks(last), list[dict[str, Any]]()
    if last != path:  # whose best/ is a copy
        rows += [{**row, "name": f"{row['name']}, in {path / BEST_FOLDER}"} for row in _file_checks(path)]
    if all(row["ok"] for row in rows):  # a file that is another one is not opened
        taken, budgets = _taken_again(last, score, data)
        rows += taken
    else:
        rows += [
            _row(f"{name}: not compared", False, None, None, "its files are not those that were delivered") for name in FORMATS
        ]
    ok = all(row["ok"] for row in [*rows, *budgets])
    for row in rows:
        log(f"{'ok    ' if row['ok'] else 'FAILED'} {row['name']}: {_told(row)}")
    for row in budgets:
        log(f"{'ok    ' if row['ok'] else 'BROKEN'} {row['text']}: {show(row['metric'], row['value'])}")
    if as_json:
        print(json.dumps({"command": "verify", "run": str(path), "ok": ok, "checks": rows, "budgets": budgets}))
    if not ok:
        failed = [row["name"] for row in rows if not row["ok"]] + [row["text"] for row in budgets if not row["ok"]]
        raise VerificationFailed(f"{path} no longer holds what it claims: {'; '.join(failed)}")
    log(f"{path} holds what it claims")


def _taken_again(path: Path, score: bool, data: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The checks and the budgets of a finished run, each claim taken again from its files."""
    delivered = _delivered(path)
    verdict = _verified(delivered, _bench(delivered))
    rows = [row for row in verdict["checks"] if row["name"] != "safetensors: largest logit difference"]
    time = verdict["metrics"].get("latency_ms")
    rows += _time_checks(delivered, time)
    if time is not None and BUSY in time["context"]:
        log("warning: the machine was busy while the time was taken; where that alone fails, verify again in quiet")
    rows += _score_checks(delivered, data) if score else []
    return rows, verdict["budgets"]


# -- the files


def _file_checks(path: Path) -> list[dict[str, Any]]:
    """The files of best/ against what they were when they were verified; nothing for runs of before that was noted."""
    known = _noted(path)
    now = digests(path / BEST_FOLDER) if known else {}
    words = {name: "is gone" if name not in now else "was changed" for name in known if now.get(name) != known[name]}
    words |= {name: "was not delivered" for name in now if name not in known}
    wrong = [
        _row(f"{name} {word}", False, None, None, "restore what was delivered: nothing of the folder is opened")
        for name, word in words.items()
    ]
    return wrong or ([_row("files", True, len(known), len(known), "as they were delivered, by SHA-256")] if known else [])


def _noted(path: Path) -> Mapping[str, str]:
    """The digests of the files as they were verified; nothing for runs of before they were noted."""
    return RunDir.read(path).record_if_there(f"{BEST_FOLDER}/{VERDICT}").get("files", {})


# -- the network


def _delivered(path: Path) -> Delivered:
    run = RunDir.read(path)
    summary = run.record_if_there("summary.json")
    if "best" not in summary:
        raise InvalidSetting(f"{str(path)!r} has delivered nothing yet; let it end: nas {run.config['command']} --resume")
    best = path / "best"
    if is_pruned(str(path)):
        source = read_source(best)
        return Delivered(run, summary, lambda: rebuilt(best), shape_of(source), lambda: build(source))
    if is_quantized(best):
        return _quantized(run, summary)
    space, arch = architecture_of(str(path))
    plan = space.plan(arch)
    return Delivered(run, summary, lambda: space.network(arch), (plan.input_channels, *plan.input_size))


def _quantized(run: RunDir, summary: Mapping[str, Any]) -> Delivered:
    found = read_quantized(run.path / "best")
    claimed = Cost({name: Metric(value, "", "claimed") for name, value in summary["best"]["metrics"].items()})
    packed, simulated = bool(found.about.get("packed")), bool(found.about.get("simulated"))
    cost = delivered_cost(found.network, scheme_of(found.about), found.folder / "model.onnx", claimed, packed)
    rounded = Rounded(found.network, cost.metrics["size_bytes"], simulated)
    return Delivered(run, summary, found.rebuilt, found.shape, found.original, rounded)


def _bench(delivered: Delivered) -> Bench | None:
    """The bench that the run timed on, None on another machine."""
    stored = delivered.run.config.get("target")
    bench = bench_at(Target(**stored)) if stored else None
    if bench is None:
        log(f"latency is not taken again: this is not {Target(**stored) if stored else 'the machine of the run'}")
    return bench


def _verified(delivered: Delivered, bench: Bench | None) -> dict[str, Any]:
    """What compress.verify finds, with the claims in the place of a plan's cost."""
    module = delivered.build().eval()
    load_weights(module, delivered.folder / WEIGHTS)
    claimed = {name: Metric(value, "", "claimed") for name, value in delivered.claimed.items() if "accuracy" not in name}
    simulated = delivered.rounded is not None and delivered.rounded.simulated
    latency = _latency(delivered, bench) if bench is not None and not simulated else claimed.get("latency_ms")
    budgets = tuple(Budget(row["text"], row["metric"], row["limit"]) for row in delivered.summary.get("budget", ()))
    images = torch.randn(IMAGES, *delivered.shape, generator=generator(0, "verify"))
    inputs = VerifyInputs(delivered.folder, module, delivered.build, images, Cost(claimed), budgets, latency, recount)
    rounded = delivered.rounded
    return verify(inputs if rounded is None else in_integers(inputs, rounded.network, rounded.stored))


# -- time


def _latency(delivered: Delivered, bench: Bench) -> Metric:
    """The median of the delivered file; where the run has an original, as it would have been when that was timed."""
    path = delivered.folder / f"model{named(bench.name).suffix}"
    example = torch.randn(bench.setting.batch, *delivered.shape, generator=generator(0, "images"))
    earlier = delivered.summary.get("original", {}).get("metrics", {}).get("latency_ms")
    if earlier is None or path.suffix != ".onnx" or delivered.original is None:
        return bench.judge_files({path: example})[path].metric
    original = delivered.folder.parent / ".original.onnx"
    try:
        # its weights do not matter for its time
        write_format("onnx", delivered.original().eval(), example[:1], original)
        times = bench.judge_files({original: example, path: example})
    finally:
        original.unlink(missing_ok=True)
    factor = earlier / times[original].ms
    metric = times[path].metric
    context = f"{metric.context}; {times[path].ms / times[original].ms:.3f} of the original's time, side by side"
    return replace(metric, value=metric.value * factor, context=context)


def _time_checks(delivered: Delivered, metric: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    claimed = delivered.claimed.get("latency_ms")
    if metric is None or claimed is None or metric["method"] == "claimed":
        return []
    limit = claimed * (1 + TIME_TOLERANCE)
    return [_row("latency in ms", metric["value"] <= limit, metric["value"], claimed, metric["context"])]


# -- accuracy


def _score_checks(delivered: Delivered, place: str | None) -> list[dict[str, Any]]:
    """The accuracy of the exported file on all test images, in its runtime."""
    claimed = delivered.claimed.get("test_accuracy")
    if claimed is None:
        return []
    data = _data(delivered, place)
    runtime = _scored_in(delivered)
    run = opened_in(runtime, delivered.folder / "model.onnx")
    split = data.load_test()
    found = file_answers(run, split, data, delivered.shape[1], "scoring model.onnx on the test images").accuracy
    detail = f"model.onnx on {len(split)} test images in {runtime}"
    return [_row("test accuracy", abs(found - claimed) <= SCORE_TOLERANCE, found, claimed, detail)]


def _scored_in(delivered: Delivered) -> str:
    """Where the run took the accuracy: of integers in the runtime that timed them, since digests are noted."""
    target = delivered.run.config.get("target")
    return scored_in(target["runtime"] if target and delivered.rounded is not None and _noted(delivered.run.path) else None)


def _data(delivered: Delivered, place: str | None) -> Dataset:
    """The data of the run, normalized as the run did. Raises InvalidData if they are others now."""
    stored, data = delivered.run.config["data"], data_of(delivered.run.config, place)
    if data.fingerprint != stored["fingerprint"]:
        raise InvalidData(
            f"{data.name} has the fingerprint {data.fingerprint}, and the run read {stored['fingerprint']}; restore the data, "
            "or leave out the accuracy with --no-score"
        )
    return replace(data, mean=tuple(stored["mean"]), std=tuple(stored["std"]))


# -- words


def _row(name: str, ok: bool, value: float | None, expected: float | None, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "value": value, "expected": expected, "detail": detail}


def _told(row: Mapping[str, Any]) -> str:
    if row["ok"]:
        return plain(row["value"])
    if row["value"] is None:
        return str(row["detail"])
    return f"{plain(row['value'])}, claimed {plain(row['expected'])} ({row['detail']})"
