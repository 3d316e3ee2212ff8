"""The machine that measures: its name, cores and cache, and where its tables are kept."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nas.latency.target import Target
from nas.runtimes import named
from nas.runtimes.runtime import Setting

_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")


def device_name(device: torch.device) -> str:
    """Model of the processor or graphics card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_bytes(device: str) -> int:
    """Size of the largest cache that one core has for itself, 0 if the system does not tell or the device has none."""
    sizes = [0]
    for index in sorted(_CACHE.glob("index*")) if device == "cpu" else ():
        shared = (index / "shared_cpu_list").read_text().strip()
        size = (index / "size").read_text().strip()
        if shared.isdigit() and size.endswith("K"):
            sizes.append(1024 * int(size.removesuffix("K")))
    return max(sizes)


def target_of(name: str, setting: Setting) -> Target:
    """What a latency belongs to that runtime `name` measures here. Raises InvalidSetting and MissingPackage as `named`."""
    version = named(name).version()
    device = device_name(torch.device(setting.device))
    return Target(device, name, version, setting.precision, setting.batch, setting.threads, cores())


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, on so many cores, the last ones, where the system allows it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tables_folder() -> Path:
    """Where tables that were measured here are kept: $NETCARVER_TABLES, or netcarver/tables in the user's cache."""
    chosen = os.environ.get("NETCARVER_TABLES")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(chosen) if chosen else Path(cache) / "netcarver" / "tables"


def table_path(target: Target) -> Path:
    """The file of the table for `target`."""
    return tables_folder() / f"{target.slug}.csv"
