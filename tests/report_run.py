"""A small run directory, made up, for the tests of the report."""

import numpy as np

from nas.architecture import Architecture
from nas.budget import Cost, Metric
from nas.report.contents import read_contents
from nas.rundir import RunDir
from nas.trial import Trial

EVIL = '</script><img src=x onerror="alert(1)"> | `boo`'


def config(**changes) -> dict:
    data = {
        "name": "digits", "fingerprint": "f00d", "classes": 3, "class_names": ["zero", EVIL, "two"], "channels": 1,
        "resolution": 16, "mean": [0.3], "std": [0.4], "train": 1293, "val": 144,
    }  # fmt: skip
    return {
        "command": "search",
        "argv": "nas search --budget 3MFLOPs",
        "options": {"trials": 40, "data": EVIL},
        "seed": 7,
        "versions": {"python": "3.11.4", "torch": "2.15.0"},
        "device": {"type": "cpu", "name": "Abacus 9000"},
        "budgets": [{"text": "3MFLOPs", "metric": "macs", "limit": 3e6}],
        "objectives": ["macs"],
        "space": {"name": "mobilenet", "version": 1, "settings": {}},
        "data": data,
        **changes,
    }


def trials(n: int = 40) -> list[Trial]:
    """Accuracy grows with the logarithm of the cost, and with luck; every fifth network is over the budget."""
    rng = np.random.default_rng(3)
    result = []
    for number in range(n):
        macs = int(rng.uniform(3.1e6, 5e6) if number % 5 == 4 else rng.uniform(0.4e6, 2.99e6))
        cost = Cost({"macs": Metric(macs, "multiply-adds", "plan"), "params": Metric(macs // 20 + 3, "parameters", "plan")})
        choices = {"resolution": 8, "s0.width": 16 + number, "s0.b0.kernel": 3, "s0.b0.act": "relu"}
        accuracy = float(min(0.995, 0.55 + 0.06 * np.log(macs / 1e5) + rng.normal(0, 0.015) + 0.1))
        state, scores = ("infeasible", {}) if macs > 3e6 else ("complete", {"val_accuracy": accuracy})
        result.append(Trial(number, Architecture("mobilenet-1-abc", choices), state, cost, scores, 0.5))
    return result


def row(trial: Trial, **more: float) -> dict:
    metrics = {**trial.cost.values(), **trial.scores, **more}
    return {"key": trial.architecture.key, "architecture": trial.architecture.to_json(), "metrics": metrics}


def verify_json(best: dict) -> dict:
    macs = {"value": best["metrics"]["macs"], "unit": "multiply-adds", "method": "fvcore", "spread": None, "context": ""}
    latency = {"value": 0.41, "unit": "ms", "method": "median", "spread": 0.02, "context": "onnxruntime, 1 thread"}
    check = {"name": "onnx: same class", "ok": True, "value": 1.0, "expected": 1.0, "detail": "144 images"}
    return {"ok": True, "checks": [check], "budgets": [], "metrics": {"macs": macs, "latency_ms": latency}}


def start(path, **changes) -> RunDir:
    run = RunDir.create("search", config(**changes), out=path)
    for trial in trials():
        run.append_trial(trial.to_json())
    return run


def finish(run: RunDir) -> dict:
    """Write summary.json and verify.json as a search does; the front is that of read_contents, which is tested apart."""
    by_key = {t.architecture.key: t for t in trials()}
    front = [by_key[n.key] for n in read_contents(run).front]
    best = row(max(front, key=lambda t: t.scores["val_accuracy"]), latency_ms=0.41, size_bytes=260_312, test_accuracy=0.9833)
    budget = {"text": "3MFLOPs", "metric": "macs", "limit": 3e6, "value": best["metrics"]["macs"], "ok": True}
    summary = {
        "command": "search", "seed": 7, "versions": {}, "device": {}, "budget": [budget], "best": best,
        "front": [row(t) for t in front], "trials": 40, "seconds": 102.4,
    }  # fmt: skip
    run.write_json("summary.json", summary)
    run.write_json("best/verify.json", verify_json(best))
    return summary


def compress(path, command: str = "quantize") -> RunDir:
    """A finished run that made something of an original: trial 0, and one more, which is delivered."""
    run = RunDir.create(
        command,
        config(command=command, options={"network": "cifar-resnet20"}, space={"name": f"{command}:cifar-resnet20"}),
        out=path,
    )
    first, second = (t for t in trials() if t.state == "complete" and t.number < 2)
    for trial in (first, second):
        run.append_trial(trial.to_json())
    layers = [
        {"name": "stem", "weight_bits": "8", "activation_bits": "8", "params": 144, "macs": 9216, "sensitivity": 0.25},
        {"name": EVIL, "weight_bits": "4", "activation_bits": "8", "params": 2304, "macs": 147_456, "sensitivity": None},
    ]
    fp32 = {"precision": "fp32", "latency_ms": 1.5, "latency_spread": 0.1, "test_accuracy": 0.93, "size_bytes": 80_000}
    int4 = {"precision": "int4", "latency_ms": None, "latency_spread": None, "test_accuracy": 0.9, "size_bytes": 10_000}
    quantization = {
        "layers": layers,
        "precisions": [{**fp32, "simulated": False, "note": ""}, {**int4, "simulated": True, "note": EVIL}],
        "costly": [{"layer": EVIL, "share": 0.75, "reason": "few bits"}],
    }
    passes = [
        {"name": "prune", "metrics": row(first)["metrics"], "seconds": 61.0, "ok": True},
        {"name": "quantize", "metrics": {"macs": 5}, "seconds": 2.5, "ok": False},
    ]
    best = row(second, test_accuracy=0.9)
    summary = {
        "command": command, "budget": [], "best": best, "front": [row(first), best], "trials": 2, "seconds": 70.0,
        "original": {"name": "cifar-resnet20", "metrics": row(first, test_accuracy=0.93)["metrics"]},
        "quantization": quantization,
    }  # fmt: skip
    run.write_json("summary.json", {**summary, "passes": passes} if command == "compress" else summary)
    run.write_json("best/verify.json", verify_json(best))
    return run


def layer(name: str, op: str = "conv", width: int = 8, **changes) -> dict:
    work = op in ("conv", "linear")
    return {
        "name": name, "op": op, "in": [8, 4, 4], "out": [width, 4, 4], "kernel": [3, 3], "stride": [1, 1],
        "groups": 1, "act": "relu", "weight_bits": 32, "macs": 100 * work, "params": 10 * work, **changes,
    }  # fmt: skip


def layers_json(key: str) -> dict:
    reference = [
        layer("stem"),
        layer("s.0.a", width=16),
        layer("s.1.a", width=16),
        layer("add", "add", 16),
        layer("fc", "linear"),
    ]
    chosen = [layer("stem"), layer("s.0.a", stride=[2, 2]), layer("fc", "linear")]
    return {"key": key, "image": [1, 4, 4], "reference": "original", "networks": {"chosen": chosen, "reference": reference}}


def record_training(run: RunDir, name: str = "training") -> None:
    for step, loss in ((1, 2.5), (10, 0.5)):
        run.append_line("training.jsonl", {"training": name, "step": step, "steps": 10, "epoch": 0, "loss": loss, "lr": 0.1})
