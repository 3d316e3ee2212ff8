"""What a training step costs in time, measured before a training is planned."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
import torch.nn as nn
import torch.nn.functional as F

from nas.data.augment import Augmentation
from nas.data.dataset import Dataset
from nas.torch_seeding import generator
from nas.training.loop import Checkpoints, Objective, TrainConfig, autocast, train

STEPS = 3
# seconds after which slow steps are known well enough
ENOUGH = 0.5
# of a whole training step: more of them, for data and augmentation differ from step to step
WHOLE_STEPS = 8
# what processors multiply bf16 with: a training step took 0.54 (AMX) and 0.61 (AVX-512) of the time in fp32 with them
NATIVE_BF16 = ("amx_bf16", "avx512_bf16")


def work_seconds(device: torch.device) -> float:
    """Seconds of work of this thread: processor time on the CPU, which other work hardly lengthens; else time."""
    if device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize(device)
    return time.monotonic()


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 natively: a GPU by itself, a processor with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # not every torch that we run with can tell
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(unit) for unit in NATIVE_BF16)


def seconds_per_step(
    module: nn.Module, shape: tuple[int, int, int, int], device: torch.device, precision: str = "fp32"
) -> float:
    """Median seconds of forward and backward on random images of `shape` (N, C, H, W), after one warm-up.

    Norm statistics of `module` move; its weights stay.
    """
    images = torch.randn(shape, generator=generator(0, "speed")).to(device, memory_format=torch.channels_last)
    module.train()
    times = []
    for _ in range(STEPS + 1):
        start = work_seconds(device)
        with autocast(precision, device):
            logits = module(images)
            loss = F.cross_entropy(logits.float(), torch.zeros(shape[0], dtype=torch.int64, device=device))
        loss.backward()
        module.zero_grad(set_to_none=True)
        times.append(work_seconds(device) - start)
        if len(times) > 1 and sum(times) > ENOUGH:
            break
    return statistics.median(times[1:])


def seconds_of_training(
    module: nn.Module, objective: Objective, data: Dataset, augmentation: Augmentation, config: TrainConfig
) -> float:
    """Median seconds of a step of the training loop with all that belongs to it; afterwards `module` is as it was."""
    device = next(module.parameters()).device
    kept = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    times, start = [], work_seconds(device)
    for _ in train(module, objective, data, augmentation, replace(config, steps=WHOLE_STEPS), Checkpoints()):
        now = work_seconds(device)
        times.append(now - start)
        start = now
    module.load_state_dict(kept)
    return statistics.median(times[1:])
