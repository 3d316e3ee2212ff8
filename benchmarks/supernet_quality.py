"""How good the supernet's networks are, compared with networks that are trained alone with the same recipe.

`python -m benchmarks.supernet_quality RUN twin|plain|ranking [--epochs N]` on a run of `nas train` or `nas search`:

- twin: the delivered network of a search, trained from scratch, as many epochs as the supernet.
- plain: a ResNet-20 (He et al. 2016) whose width is scaled down to the budget, trained likewise.
- ranking: 12 networks spread evenly over the cost range of the space, each trained alone: Kendall tau and Spearman's rho
  between the supernet's validation accuracy, which is what a search sees, and theirs on validation and on test images.

All train with the run's own optimizer, schedule, augmentation and batch size. Standalone accuracies are kept in
RUN/standalone.jsonl and not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from scipy.stats import kendalltau, spearmanr

from nas import files
from nas.architecture import Architecture
from nas.cli.job import Job, device_name, make_job
from nas.cli.settings import Settings
from nas.cli.stages import trained_supernet
from nas.cost.recount import recount
from nas.evaluation.supernet import SupernetEvaluator, accuracy, calibrate, resolution_of
from nas.plan import ConvSpec
from nas.rundir import RunDir
from nas.search.select import best
from nas.seeding import numpy_rng
from nas.supernet.blocks import BasicBlock, BlockSpec, ConvNormAct
from nas.supernet.supernet import initialize
from nas.training.loop import Checkpoints, train
from nas.training.objectives import at_resolution, classification
from nas.trial import Trial
from search_spaces.staged import StagedNetwork

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


def resnet20(job: Job, width: int) -> nn.Module:
    """ResNet-20 with stages of width, 2 width and 4 width; projection shortcuts where the shape changes."""
    before, stages = width, []
    for stage in range(3):
        after, first = width * 2**stage, 2 if stage else 1
        specs = [BlockSpec(before, after, after, stride=first, projects=stage > 0)] + [BlockSpec(after, after, after)] * 2
        stages.append({i: BasicBlock(spec) for i, spec in enumerate(specs)})
        before = after
    stem = ConvNormAct((job.data.channels, width), ConvSpec(3, act="relu"))
    return StagedNetwork(stem, stages, nn.Identity(), nn.Linear(before, job.data.classes))


def plain_resnet(job: Job) -> tuple[str, nn.Module]:
    """The widest ResNet-20 that keeps the first budget."""
    if not job.budgets:
        raise SystemExit("the run has no budget that a plain network could keep")
    example = torch.zeros(1, job.data.channels, job.data.resolution, job.data.resolution)
    for width in range(64, 3, -1):
        module = resnet20(job, width)
        if job.budgets[0].check(recount(module, example)) is None:
            return f"resnet20-width{width}", module
    raise SystemExit(f"no plain ResNet-20 keeps {job.budgets[0].text}")


def kept(path: Path, name: str, epochs: int) -> dict[str, float] | None:
    """The result of an earlier call."""
    lines = files.read_log(path)[0] if path.exists() else []
    return next((x["scores"] for x in lines if (x["name"], x["epochs"]) == (name, epochs)), None)


def trained_alone(job: Job, run: RunDir, name: str, module: nn.Module, resolution: int, epochs: int) -> dict[str, float]:  # noqa: PLR0913
    """Train a network alone, unless that was done before."""
    log = run.path / "standalone.jsonl"
    scores = kept(log, name, epochs)
    if scores is None:
        scores = standalone(job, module, resolution, epochs)
        files.append_line(log, {"name": name, "epochs": epochs, "scores": scores})
    print(name, epochs, scores, flush=True)
    return scores


def ranking(job: Job, run: RunDir, epochs: int) -> dict[str, object]:
    """Correlation of supernet and standalone accuracies over NETWORKS networks."""
    archs = spread(job)
    scores = [trained_alone(job, run, a.key, job.space.network(a), resolution_of(a), epochs) for a in archs]
    supernet = trained_supernet(replace(job, settings=replace(job.settings, supernet=str(run.path))), run)
    evaluate = SupernetEvaluator(supernet, job.data, job.settings.seed)
    shared = [evaluate(a)["val_accuracy"] for a in archs]
    print(f"{'key':14}{'MFLOPs (multiply-adds)':>24}{'supernet val':>14}{'alone val':>11}{'alone test':>12}")
    for arch, a, b in zip(archs, shared, scores, strict=True):
        macs = job.cost(arch).values()["macs"] / 1e6
        print(f"{arch.key:14}{macs:24.2f}{a:14.4f}{b['val_accuracy']:11.4f}{b['test_accuracy']:12.4f}")
    result: dict[str, object] = {"networks": len(archs)}
    for split in ("val_accuracy", "test_accuracy"):
        alone = [s[split] for s in scores]
        tau, rho = kendalltau(shared, alone).statistic, spearmanr(shared, alone).statistic
        result[f"alone {split}"] = {"kendall_tau": round(float(tau), 3), "spearman": round(float(rho), 3)}
    return result


def one(job: Job, run: RunDir, what: str, epochs: int) -> dict[str, object]:
    """The twin of the delivered network, or the plain ResNet of the budget."""
    if what == "plain":
        name, module = plain_resnet(job)
        resolution = job.data.resolution
    else:
        arch = job.space.from_json(delivered(job, run))
        name, module, resolution = arch.key, job.space.network(arch), resolution_of(arch)
    macs = recount(module, torch.zeros(1, job.data.channels, resolution, resolution)).values()["macs"]
    return {"network": name, "macs": macs, **trained_alone(job, run, name, module, resolution, epochs)}


def delivered(job: Job, run: RunDir) -> dict:
    """The architecture that the run delivers; the best of its trials as long as it is not delivered."""
    path = run.path / "best/architecture.json"
    if path.exists():
        return json.loads(path.read_text())
    trials = [Trial.from_json(line, job.space.from_json(line["architecture"])) for line in run.trials()]
    return best(trials, job.problem).architecture.to_json()


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
