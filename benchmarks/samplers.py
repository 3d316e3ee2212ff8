"""What a supernet learns by each sampler of its training, for the same multiply-adds.

    python -m benchmarks.samplers --data fashion-mnist --budget 2MFLOPs --steps 1500

Trains one supernet a sampler with the same recipe, each with the work of `--steps` steps of the largest network alone. Then
networks that take 70 to 100% of the budget, drawn once, are extracted, calibrated and evaluated on validation images, and the
largest and the smallest one. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json

import torch

from nas.architecture import Architecture, SearchSpace
from nas.budget import Budget, share
from nas.cli.deciding import augmentation_of
from nas.cli.settings import Settings
from nas.cost.counting import count
from nas.data.config import DataConfig
from nas.data.load import load
from nas.evaluation.supernet import SupernetEvaluator
from nas.seeding import numpy_rng
from nas.supernet.supernet import Supernet
from nas.training.loop import Checkpoints, TrainConfig, train
from nas.training.objectives import in_place
from nas.training.samplers import SAMPLERS, Sampling, step_cost
from nas.training.speed import work_seconds
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

NEAR = (0.7, 1.0)  # of the budget
CPU = torch.device("cpu")


def drawn(space: SearchSpace, budget: Budget, networks: int) -> list[Architecture]:
    """Random networks that cost about what the budget allows."""
    found: dict[str, Architecture] = {}
    for number in range(100_000):
        arch = space.sample(numpy_rng(1, "judged", number))
        if NEAR[0] <= share([budget], count(space.plan(arch))) <= NEAR[1]:
            found[arch.key] = arch
        if len(found) == networks:
            break
    return list(found.values())


def main() -> None:
    """Train a supernet by each sampler, and judge its networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--budget", default="2MFLOPs")
    parser.add_argument("--space", default="convnet")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data, budget = load(DataConfig(asked.data)), Budget.parse(asked.budget)
    family = SPACES[asked.space]
    space = sized(family, DataShape(data.channels, data.resolution, data.classes), [budget], family.options())
    judged, rows = drawn(space, budget, asked.networks), []
    print(f"{'sampler':10} {'a step':>7} {'steps':>6} {'seconds':>8} {'near':>7} {'largest':>8} {'smallest':>9}", flush=True)
    for name in asked.samplers:
        sampler = SAMPLERS[name](Sampling(space, 0, lambda arch: share([budget], count(space.plan(arch)))))
        cost = step_cost(sampler, lambda arch: count(space.plan(arch)).values()["macs"])
        config = TrainConfig(1, 128, lr=0.1, weight_decay=5e-4, steps=max(1, round(asked.steps / cost)))
        supernet, began = Supernet(space, 0), work_seconds(CPU)
        for _ in train(
            supernet, in_place(supernet, sampler, 0.1), data, augmentation_of(Settings(), data), config, Checkpoints()
        ):
            pass
        seconds, evaluator = work_seconds(CPU) - began, SupernetEvaluator(supernet, data, 0)
        near = [evaluator(arch)["val_accuracy"] for arch in judged]
        ends = [evaluator(arch)["val_accuracy"] for arch in (space.largest(), space.smallest())]
        row = {
            "sampler": name,
            "cost_of_a_step": cost,
            "steps": config.steps,
            "seconds": seconds,
            "near_mean": sum(near) / len(near),
        }
        rows.append({**row, "near_best": max(near), "largest": ends[0], "smallest": ends[1]})
        print(
            f"{name:10} {cost:7.2f} {config.steps:6} {seconds:8.1f} {row['near_mean']:7.2%} {ends[0]:8.2%} {ends[1]:9.2%}",
            flush=True,
        )
    print(json.dumps({"benchmark": "samplers", "data": asked.data, "budget": asked.budget, "space": space.id, "rows": rows}))


if __name__ == "__main__":
    main()
