"""Freed memory is kept for the next tensor: counted in page faults, which do not depend on what else the machine does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nas.cli.memory import give_freed_memory_back, keep_freed_memory

LOOP = """
import resource
import numpy as np
from nas.cli.memory import keep_freed_memory

{told}
for round in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    first = np.full(10_000_000, 1.0)  # 80 MB
    second = first + 1
    del first, second
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(told: str) -> int:
    done = subprocess.run([sys.executable, "-c", LOOP.format(told=told)], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the allocator is not that of glibc")
def test_tensors_are_made_of_pages_that_are_there():
    assert faults("keep_freed_memory()") < 0.1 * faults("")


PIECES = """
import numpy as np
from nas.cli.memory import give_freed_memory_back, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

keep_freed_memory()
pieces = [np.full(1_000_000, 1.0) for _ in range(40)]  # 8 MB each
last = pieces[-1]
whole = resident()
del pieces
kept = resident()
assert give_freed_memory_back()
print(whole - kept, whole - resident())
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the allocator is not that of glibc")
def test_between_stages_it_is_given_back():
    done = subprocess.run([sys.executable, "-c", PIECES], stdout=subprocess.PIPE, text=True, check=True)
    kept, given = map(int, done.stdout.split())
    assert kept < 50_000_000 and given > 250_000_000
    assert give_freed_memory_back() in (True, False)
