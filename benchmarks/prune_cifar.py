"""Importances and allocations on CIFAR-10 ResNets at a share of the multiply-adds, batch norms recalibrated.

python -m benchmarks.prune_cifar DATA.npz WEIGHTS [--network cifar-resnet56] [--share 0.5] [--epochs 0] [--images 45000]
                                 [--importances l2 ...] [--allocations uniform isomorphic rd] [--rows FILE.jsonl] [--threads 1]

The baseline is torch-pruning's MetaPruner with its defaults, on the channels inside of blocks. With --epochs each network is
fine-tuned on the first --images training images as `nas prune` does it; the baseline, whose channels are not known to us,
without features. Accuracies are of all test images; `away` tells how far the network is from the original on changed validation
images (benchmarks/nearness.py), which may decide between methods. Rows are kept in --rows; what it has is not taken again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import torch
from torch import nn

from benchmarks.nearness import Yardstick, yardstick
from benchmarks.prune_faster import TRUNK
from benchmarks.torch_pruning_baseline import meta_pruned
from compress.prune.attention import prepare
from compress.prune.cifar_resnet import CIFAR_RESNETS, MEAN, STD
from compress.prune.history import History
from compress.prune.importance import IMPORTANCES
from compress.prune.matching import places
from compress.prune.pipeline import (
    Calibration,
    Pruned,
    Ranking,
    Recipe,
    Subject,
    allocated,
    analysed,
    example_of,
    further,
    ranked,
)
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
JUDGED = 1000
BASELINE = "torch-pruning MetaPruner"


@dataclass(frozen=True, eq=False)
class Bed:
    """What all rows share."""

    data: Dataset
    subject: Subject
    calibration: Calibration
    yardstick: Yardstick
    network: str
    share: float
    epochs: int
    images: int

    def tested(self, module: nn.Module) -> float:
        """Accuracy on all test images."""
        with torch.autocast("cpu", torch.bfloat16):
            return accuracy(module.to(memory_format=torch.channels_last), self.data.load_test(), self.data, 32)

    def judged(self, module: nn.Module, stage: str) -> dict[str, float]:
        """Accuracy after a stage, and the distance from the original."""
        return {stage: self.tested(module), f"{stage}_away": self.yardstick.away(module)}


def bed_of(args: argparse.Namespace) -> Bed:
    data = replace(load(DataConfig(f"npz:{args.data}")), mean=MEAN, std=STD, flip=True)
    module = CIFAR_RESNETS[args.network]()
    load_into(module, Path(args.weights))
    batches = epoch_batches(len(data.train), 128, 0, 0)
    labelled = list(prepared(data.train, batches[:4], data, 32, torch.device("cpu")))
    curved, norms = (
        [x for x, _ in prepared(data.train, part, data, 32, torch.device("cpu"))] for part in (batches[4:6], batches[8:24])
    )
    calibration = Calibration(tuple(labelled), tuple(curved), tuple(norms), "bf16")
    subject, away = analysed(module.eval(), example_of((3, 32, 32))), yardstick(module, data, JUDGED)
    return Bed(data, subject, calibration, away, args.network, args.share, args.epochs, args.images)


@lru_cache(maxsize=1)
def ranking_of(bed: Bed, importance: str, compensate: bool) -> Ranking:
    """What the channels are worth, with what any allocation needs to know: rows of one importance share it."""
    return ranked(bed.subject, Recipe(importance, "rd", compensate=compensate), bed.calibration)


def row_of(bed: Bed, importance: str, compensate: bool, allocation: str) -> dict:
    start = time.monotonic()
    ranking = ranking_of(bed, importance, compensate)
    ranking_seconds = time.monotonic() - start
    budget = Budget.parse(f"{100 * bed.share:g}%").resolve(bed.subject.cost)
    keep = allocated(bed.subject, ranking, [budget], Recipe(importance, allocation, compensate=compensate))
    found = further(Pruned(bed.subject, History(), bed.subject.widths.full), ranking, keep, bed.calibration)
    share = found.subject.cost.metrics["macs"].value / bed.subject.cost.metrics["macs"].value
    seconds = {"ranking_seconds": ranking_seconds, "cut_seconds": time.monotonic() - start}
    return {"macs_share": share, **accuracies(bed, found.module, found.history), **seconds}


def baseline(bed: Bed) -> dict:
    parts = dict(bed.subject.module.named_modules())
    blocks = tuple(name for name in TRUNK["cifar-resnet56"] if name in parts)
    module = meta_pruned(bed.subject.module, bed.subject.example, bed.share, blocks)
    raw = bed.tested(module)
    recalibrate(module, bed.calibration.norms)
    return {"without_recalibration": raw, **accuracies(bed, module)}


def accuracies(bed: Bed, module: nn.Module, history: History | None = None) -> dict[str, float]:
    """How good it is before and after the fine-tuning; features are followed where it is known what was cut."""
    found = bed.judged(module, "cut")
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
        found |= bed.judged(student, "finetuned")
    return found


def taken(bed: Bed, args: argparse.Namespace) -> Iterator[dict]:
    """All rows, each as soon as it is there; those of --rows as they are."""
    read = {"data": Path(args.data).name, "weights": Path(args.weights).name}
    settings = {"network": bed.network, **read, "share": bed.share, "epochs": bed.epochs, "images": bed.images}
    kept = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows and args.rows.exists() else []
    todo: dict[tuple, Callable[[], dict]] = {(BASELINE, False, "uniform"): partial(baseline, bed)}
    for asked in product(args.importances, [answer == "yes" for answer in args.compensate], args.allocations):
        todo[asked] = partial(row_of, bed, *asked)
    for asked, take in todo.items():
        named = {**settings, **dict(zip(("importance", "compensate", "allocation"), asked, strict=True))}
        row = next((row for row in kept if named.items() <= row.items()), None)
        if row is None:
            row = {**named, **take(), "load": machine_load()}
            if args.rows:
                with args.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        yield row


def table(rows: Sequence[dict]) -> str:
    """Markdown: a line for each importance, and for each allocation the accuracy after the cut and after the fine-tuning."""
    named = list(dict.fromkeys(row["allocation"] for row in rows))
    lines = [" | ".join(("| importance", *named, "")).strip(), "|---" * (1 + len(named)) + "|"]
    for key in dict.fromkeys((row["importance"], row["compensate"]) for row in rows):
        cells = []
        for allocation in named:
            row = next((r for r in rows if (r["importance"], r["compensate"], r["allocation"]) == (*key, allocation)), {})
            cells.append(", ".join(f"{row[s]:.1%} ({row[f'{s}_away']:.2f})" for s in ("cut", "finetuned") if s in row))
        name = key[0] if key[1] else f"{key[0]}, no compensation"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for row in taken(bed_of(args), args):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(table(rows))
    print(json.dumps({"benchmark": "prune_cifar", "rows": rows}))


if __name__ == "__main__":
    main()
