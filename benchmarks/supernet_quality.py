"""How good the supernet's networks are, compared with networks that are trained alone with the same recipe.

`python -m benchmarks.supernet_quality RUN twin|plain|ranking [--epochs N]` on a run of `nas train` or `nas search`:

- twin: the delivered network of a search, trained from scratch, as many epochs as the supernet.
- plain: a ResNet-20 (He et al. 2016) whose width is scaled down to the budget, trained likewise.
- ranking: 12 networks spread evenly over the cost range of the space, each trained alone: Kendall tau and Spearman's rho
  between the supernet's validation accuracy and theirs.

All train with the run's own optimizer, schedule, augmentation and batch size. Standalone accuracies are kept in
RUN/standalone.jsonl and not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.nn as nn
from scipy.stats import kendalltau, spearmanr

from nas import files
from nas.architecture import Architecture
from nas.cli.job import Job, device_name, make_job
from nas.cli.settings import Settings
from nas.cli.stages import trained_supernet
from nas.cost.counting import count
from nas.evaluation.supernet import SupernetEvaluator, accuracy, calibrate, resolution_of
from nas.rundir import RunDir
from nas.seeding import numpy_rng
from nas.supernet.supernet import initialize
from nas.training.loop import Checkpoints, train
from nas.training.objectives import at_resolution, classification
from search_spaces.resnet import ResNetSpace

NETWORKS = 12


def standalone(job: Job, module: nn.Module, resolution: int, epochs: int) -> dict[str, float]:
    """Train `module` from scratch; test and validation accuracy after recalibration, as everything is judged."""
    start = time.monotonic()
    initialize(module, job.settings.seed)
    module.to(job.device)
    config = replace(job.training, epochs=epochs)
    objective = classification(at_resolution(module, resolution), job.settings.smoothing)
    for _ in train(module, objective, job.data, job.augmentation, config, Checkpoints()):
        pass
    calibrate(module, job.data, resolution, job.settings.seed)
    splits = {"val_accuracy": job.data.val, "test_accuracy": job.data.load_test()}
    scores = {name: accuracy(module, split, job.data, resolution) for name, split in splits.items()}
    return {**scores, "seconds": round(time.monotonic() - start, 1)}


def spread(job: Job) -> list[Architecture]:
    """The smallest, the largest, and random networks at even distances of multiply-adds between them."""
    pool = [job.space.sample(numpy_rng(0, "ranking", i)) for i in range(2000)]
    costs = np.array([job.cost(a).values()["macs"] for a in pool])
    ends = [job.space.smallest(), job.space.largest()]
    low, high = (job.cost(a).values()["macs"] for a in ends)
    steps = np.linspace(low, high, NETWORKS)[1:-1]
    return [ends[0], *(pool[int(np.abs(costs - s).argmin())] for s in steps), ends[1]]


def plain_resnet(job: Job) -> tuple[ResNetSpace, Architecture]:
    """ResNet-20 with the widest stages (w, 2w, 4w) that keep the first budget."""
    limit, shape = job.budgets[0], (job.data.channels, (job.data.resolution,), job.data.classes)
    for width in range(64, 3, -1):
        widths = tuple((width * 2**s,) for s in range(3))
        space = ResNetSpace(*shape, widths=widths, depth=3, stem=(width, 1), strides=(1, 2, 2), ratios=((1.0,),) * 3)
        if limit.check(count(space.plan(space.largest()))) is None:
            return space, space.largest()
    raise SystemExit(f"no plain ResNet-20 keeps {limit.text}")


def kept(path: Path, name: str, epochs: int) -> dict[str, float] | None:
    """The result of an earlier call."""
    lines = files.read_log(path)[0] if path.exists() else []
    return next((x["scores"] for x in lines if (x["name"], x["epochs"]) == (name, epochs)), None)


def trained_alone(job: Job, run: RunDir, space: object, archs: Iterable[Architecture], epochs: int) -> list[dict[str, float]]:
    """Train each network alone, unless that was done before."""
    log, results = run.path / "standalone.jsonl", []
    for arch in archs:
        scores = kept(log, arch.key, epochs)
        if scores is None:
            scores = standalone(job, space.network(arch), resolution_of(arch), epochs)
            files.append_line(log, {"name": arch.key, "epochs": epochs, "scores": scores})
        results.append(scores)
        print(arch.key, epochs, scores, flush=True)
    return results


def ranking(job: Job, run: RunDir, epochs: int) -> dict[str, object]:
    """Correlation of supernet and standalone accuracies over NETWORKS networks."""
    archs = spread(job)
    alone = [s["val_accuracy"] for s in trained_alone(job, run, job.space, archs, epochs)]
    supernet = trained_supernet(replace(job, settings=replace(job.settings, supernet=str(run.path))), run)
    evaluate = SupernetEvaluator(supernet, job.data, job.settings.seed)
    shared = [evaluate(a)["val_accuracy"] for a in archs]
    print(f"{'key':14}{'MFLOPs (multiply-adds)':>24}{'supernet':>10}{'alone':>10}")
    for arch, a, b in zip(archs, shared, alone, strict=True):
        print(f"{arch.key:14}{job.cost(arch).values()['macs'] / 1e6:24.2f}{a:10.4f}{b:10.4f}")
    tau, rho = kendalltau(shared, alone).statistic, spearmanr(shared, alone).statistic
    return {"networks": len(archs), "kendall_tau": round(float(tau), 3), "spearman": round(float(rho), 3)}


def one(job: Job, run: RunDir, what: str, epochs: int) -> dict[str, object]:
    """The twin of the delivered network, or the plain ResNet of the budget."""
    if what == "plain":
        space, arch = plain_resnet(job)
    else:
        space, arch = job.space, job.space.from_json(json.loads((run.path / "best/architecture.json").read_text()))
    (scores,) = trained_alone(job, run, space, [arch], epochs)
    return {"key": arch.key, "macs": count(space.plan(arch)).values()["macs"], **scores}


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("what", choices=("twin", "plain", "ranking"))
    parser.add_argument("--epochs", type=int, help="of the networks that are trained alone; default: as the supernet")
    args = parser.parse_args()
    run = RunDir.read(args.run)
    options = {n: tuple(v) if isinstance(v, list) else v for n, v in run.config["options"].items()}
    job = make_job(Settings(**options))
    epochs = args.epochs or job.training.epochs
    result = ranking(job, run, epochs) if args.what == "ranking" else one(job, run, args.what, epochs)
    device = {"device": device_name(job.device), "precision": job.training.precision}
    print(json.dumps({"benchmark": f"supernet_quality {args.what}", "epochs_alone": epochs, **result, **device}))


if __name__ == "__main__":
    main()
