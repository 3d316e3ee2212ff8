"""Timing on a graphics card, which works in the background: by events on its own stream."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from nas.runtimes.runtime import Kernel, Setting

NANOSECONDS = 1_000_000  # of a millisecond, in which events tell the time


def event_timer(kernel: Kernel) -> int:
    """Nanoseconds that the card takes for what one call of `kernel` enqueues."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    kernel()
    end.record()
    end.synchronize()
    return round(NANOSECONDS * start.elapsed_time(end))


def current_device(setting: Setting) -> AbstractContextManager[object]:
    """Make the card of `setting` the current one, whose stream the events are recorded on."""
    return torch.cuda.device(setting.device) if setting.device_type == "cuda" else nullcontext()
