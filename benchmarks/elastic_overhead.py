"""What elasticity costs: forward and backward of the supernet at an architecture, against the extracted module.

`python -m benchmarks.elastic_overhead [--device cuda]`. The two are interleaved, batch 64, norms in training mode; the figure
is the ratio of the medians, with the interquartile range of the ratios of neighbouring samples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter_ns

import torch
from torch import Tensor

from nas.budget import Budget
from nas.cli.job import device_name, pick_device
from nas.cost.counting import count
from nas.seeding import numpy_rng
from nas.supernet.supernet import Supernet
from nas.torch_seeding import generator
from search_spaces import SPACES, sized
from search_spaces.staged import DataShape

BATCH, ROUNDS, WARMUPS = 64, 15, 3
CASES = [("mobilenet", (1, 8, 10), "3MFLOPs"), ("resnet", (3, 32, 10), "20MFLOPs"), ("mobilenet", (3, 32, 10), "20MFLOPs")]


def interleaved(
    first: Callable[[], None], second: Callable[[], None], wait: Callable[[], object]
) -> tuple[list[int], list[int]]:
    """Nanoseconds of each, in turn; the order alternates."""
    times: tuple[list[int], list[int]] = ([], [])
    for round_number in range(WARMUPS + ROUNDS):
        pairs = list(zip((first, second), times, strict=True))
        for step, record in pairs if round_number % 2 else reversed(pairs):
            wait()
            start = perf_counter_ns()
            step()
            wait()
            if round_number >= WARMUPS:
                record.append(perf_counter_ns() - start)
    return times


def stepper(forward: Callable[[Tensor], Tensor], parameters: list[Tensor], x: Tensor) -> Callable[[], None]:
    """One forward and backward pass with fresh gradients."""

    def step() -> None:
        for p in parameters:
            p.grad = None
        forward(x).square().mean().backward()

    return step


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    rows = []
    print(f"{'space':10}{'pixels':>7}{'network':>10}{'MFLOPs (multiply-adds)':>24}{'extracted ms':>14}{'ratio':>8}{'IQR':>16}")
    for name, shape, budget in CASES:
        space = sized(SPACES[name], DataShape(*shape), [Budget.parse(budget)], SPACES[name].options())
        supernet = Supernet(space, 0).to(device)
        x = torch.randn(BATCH, shape[0], shape[1], shape[1], generator=generator(0, "x")).to(device)
        x = x.contiguous(memory_format=torch.channels_last)
        for label, arch in [
            ("smallest", space.smallest()),
            *((f"random {i}", space.sample(numpy_rng(0, "overhead", i))) for i in range(3)),
            ("largest", space.largest()),
        ]:
            module = supernet.extract(arch).train()
            shared = stepper(lambda x, net=supernet, a=arch: net(x, a), list(supernet.parameters()), x)
            plain = stepper(module, list(module.parameters()), x)
            a, b = interleaved(plain, shared, wait)
            low, _, high = quantiles([s / p for p, s in zip(a, b, strict=True)], n=4)
            macs = count(space.plan(arch)).values()["macs"]
            rows.append(
                {"space": name, "pixels": shape[1], "network": label, "macs": macs, "ratio": round(median(b) / median(a), 3)}
            )
            ratio, spread = f"{rows[-1]['ratio']:8.3f}", f"{low:.2f} to {high:.2f}"
            print(f"{name:10}{shape[1]:7}{label:>10}{macs / 1e6:24.2f}{median(a) / 1e6:14.1f}{ratio}{spread:>16}")
    described = {"device": device_name(device), "threads": torch.get_num_threads(), "batch": BATCH, "rounds": ROUNDS}
    print(json.dumps({"benchmark": "elastic_overhead", **described, "rows": rows}))


if __name__ == "__main__":
    main()
