"""How much memory there is, so that what cannot be held is refused before it is read."""

from __future__ import annotations

import math
from pathlib import Path

from nas.budget import format_value
from nas.errors import InvalidData

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_MEMINFO, _STATM = Path("/proc/meminfo"), Path("/proc/self/statm")
_CGROUP, _CGROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
_PAGE = 4096


def available() -> float:
    """Bytes that this process may still take: of the machine, of its control group, of its own limit; infinite if unknown."""
    return min(_of_machine(), _of_group(), _of_process())


def check_memory(where: str, what: str, needed: float) -> None:
    """Raise InvalidData for what needs more memory than there is."""
    if needed > (there := available()):
        sizes = f"{format_value('size_bytes', needed)} of memory, and {format_value('size_bytes', there)} are free"
        raise InvalidData(f"{where}: {what} needs {sizes}; give fewer or smaller images, or a folder of them (imagefolder:DIR)")


def _of_machine() -> float:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError, IndexError):
        return math.inf


def _of_group() -> float:
    try:
        return float(int(_CGROUP.read_text()) - int(_CGROUP_USED.read_text()))
    except (OSError, ValueError):  # no group, or "max"
        return math.inf


def _of_process() -> float:
    if resource is None or (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) == resource.RLIM_INFINITY:
        return math.inf
    try:
        return float(limit - _PAGE * int(_STATM.read_text().split()[0]))
    except (OSError, ValueError, IndexError):
        return float(limit)
