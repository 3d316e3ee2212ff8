"""Memory that was freed is kept for what comes next: activations are asked for and freed again at every layer."""

from __future__ import annotations

import ctypes
import sys

# of <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """Let the allocator keep up to KEPT bytes that are freed; True if it is one that can be told so, that of glibc.

    By itself it gives every tensor above 32 MB back to the system when it is freed, and the next one is made of new pages, each
    of which the system clears: a quarter to a third of the time of large networks.
    """
    if sys.platform != "linux":
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    return tell is not None and all(tell(name, KEPT) == 1 for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))


def give_freed_memory_back() -> bool:
    """Give what is free now back to the system; True where that is possible.

    Between stages: data, exporters and runtimes leave a gigabyte of pieces, too small for the features of the next stage.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and trim(0) == 1
