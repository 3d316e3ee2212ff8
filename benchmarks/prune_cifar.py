"""Importances and allocations on CIFAR-10 ResNets at a share of the multiply-adds, batch norms recalibrated.

python -m benchmarks.prune_cifar DATA.npz WEIGHTS [--network cifar-resnet56] [--share 0.5] [--epochs 0] [--images 45000]
                                 [--importances l2 ...] [--allocations uniform isomorphic rd]

The baseline is torch-pruning's MetaPruner with its defaults, on the channels inside of blocks. With --epochs each network is
fine-tuned on the first --images training images as `nas prune` does it; the baseline, whose channels are not known to us,
without features. Accuracies are of all test images.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.prune_faster import TRUNK
from benchmarks.torch_pruning_baseline import meta_pruned
from compress.prune.attention import prepare
from compress.prune.cifar_resnet import CIFAR_RESNETS, MEAN, STD
from compress.prune.history import History
from compress.prune.importance import IMPORTANCES
from compress.prune.matching import places
from compress.prune.passes import pruned
from compress.prune.pipeline import Calibration, Recipe, Subject, analysed, example_of
from compress.prune.sources import load_into
from nas.budget import Budget
from nas.cli.existing import TAUGHT_MIXUP
from nas.cli.job import LEARNING_RATES
from nas.cli.pruning.finetuning import FEATURES
from nas.cli.pruning.job import FINETUNE_LR
from nas.cli.pruning.settings import PRUNE_DEFAULTS
from nas.cost.measure import load as machine_load
from nas.data.augment import default_augmentation
from nas.data.dataset import Dataset, Subset, epoch_batches
from nas.data.load import DataConfig, load
from nas.evaluation.supernet import accuracy, prepared
from nas.training.calibration import recalibrate
from nas.training.features import matched
from nas.training.loop import Checkpoints, TrainConfig, train
from nas.training.objectives import SOFT, distillation

ALLOCATED = ("uniform", "isomorphic", "rd")


@dataclass(frozen=True)
class Bed:
    """What all rows share."""

    data: Dataset
    subject: Subject
    calibration: Calibration
    share: float
    epochs: int
    images: int

    def tested(self, module: nn.Module) -> float:
        """Accuracy on all test images."""
        with torch.autocast("cpu", torch.bfloat16):
            return accuracy(module.to(memory_format=torch.channels_last), self.data.load_test(), self.data, 32)


def bed_of(args: argparse.Namespace) -> Bed:
    data = replace(load(DataConfig(f"npz:{args.data}")), mean=MEAN, std=STD)
    module = CIFAR_RESNETS[args.network]()
    load_into(module, Path(args.weights))
    batches = epoch_batches(len(data.train), 128, 0, 0)
    labelled = list(prepared(data.train, batches[:4], data, 32, torch.device("cpu")))
    curved, norms = (
        [x for x, _ in prepared(data.train, part, data, 32, torch.device("cpu"))] for part in (batches[4:6], batches[8:24])
    )
    calibration = Calibration(tuple(labelled), tuple(curved), tuple(norms), "bf16")
    return Bed(data, analysed(module.eval(), example_of((3, 32, 32))), calibration, args.share, args.epochs, args.images)


def row_of(bed: Bed, importance: str, allocation: str, compensate: bool) -> dict:
    start = time.monotonic()
    recipe = Recipe(importance, allocation, compensate=compensate)
    budget = Budget.parse(f"{100 * bed.share:g}%").resolve(bed.subject.cost)
    found = pruned(bed.subject, [budget], recipe, bed.calibration)
    share = found.subject.cost.metrics["macs"].value / bed.subject.cost.metrics["macs"].value
    row = {"importance": importance, "allocation": allocation, "compensate": compensate, "macs_share": share}
    return {**row, **accuracies(bed, found.module, found.history), "seconds": time.monotonic() - start}


def baseline(bed: Bed, network: str) -> dict:
    blocks = (
        TRUNK["cifar-resnet56"]
        if network == "cifar-resnet56"
        else tuple(name for name in TRUNK["cifar-resnet56"] if name in dict(bed.subject.module.named_modules()))
    )
    module = meta_pruned(bed.subject.module, bed.subject.example, bed.share, blocks)
    row = {"importance": "torch-pruning MetaPruner", "allocation": "uniform", "compensate": False}
    raw = bed.tested(module)
    recalibrate(module, bed.calibration.norms)
    return {**row, "without_recalibration": raw, **accuracies(bed, module)}


def accuracies(bed: Bed, module: nn.Module, history: History | None = None) -> dict[str, float]:
    """Test accuracy before and after the fine-tuning; features are followed where it is known what was cut."""
    found = {"cut": bed.tested(module)}
    if bed.epochs:
        whole = bed.subject.module
        followed = places(prepare(whole), module, bed.subject.example, history) if history else ()
        student, teacher = (prepare(one).to(memory_format=torch.channels_last) for one in (module, whole))
        data = replace(bed.data, train=Subset(bed.data.train, torch.arange(min(bed.images, len(bed.data.train)))))
        augmentation = replace(default_augmentation(data), mixup=TAUGHT_MIXUP)
        rate = FINETUNE_LR * LEARNING_RATES["sgd"]
        config = TrainConfig(bed.epochs, PRUNE_DEFAULTS.batch_size, lr=rate, precision="bf16")
        with matched(distillation(student, teacher.eval(), SOFT), student, teacher, followed, FEATURES) as objective:
            for _ in train(student, objective, data, augmentation, config, Checkpoints()):
                pass
        recalibrate(student, bed.calibration.norms)
        found["finetuned"] = bed.tested(student)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--network", default="cifar-resnet56")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--images", type=int, default=45_000)
    parser.add_argument("--importances", nargs="*", default=[n for n in IMPORTANCES if not n.startswith("nni")])
    parser.add_argument("--allocations", nargs="*", default=ALLOCATED)
    parser.add_argument("--compensate", nargs="*", default=["no", "yes"])
    args = parser.parse_args()
    bed = bed_of(args)
    rows = [baseline(bed, args.network)]
    print(json.dumps(rows[0]), flush=True)
    for importance in args.importances:
        for allocation in args.allocations:
            for compensate in args.compensate:
                rows.append(row_of(bed, importance, allocation, compensate == "yes"))
                print(json.dumps(rows[-1]), flush=True)
    settings = {"network": args.network, "share": args.share, "epochs": args.epochs, "images": args.images}
    print(json.dumps({"benchmark": "prune_cifar", **settings, "load": machine_load(), "rows": rows}))


if __name__ == "__main__":
    main()
