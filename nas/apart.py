"""Work of other projects' parsers, done in a child process: what makes one end, hang or grow ends the child alone.

Checkers and inference of shapes are written in C++: a file that is made for it ends them by a signal, and the process with
them. The child is a fork, which costs milliseconds; it runs nothing but the work, and leaves without any cleaning up.
"""

from __future__ import annotations

import faulthandler
import math
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

SECONDS = 30.0
ROOM = 2 << 30  # bytes of memory beside what this process has
_STATM, _PAGE = Path("/proc/self/statm"), 4096
_DONE, _FAILED = b"+", b"-"
_PIECE = 1 << 20


class Failed(Exception):
    """The work did not end as it should; the message says how in a few words."""


def apart(work: Callable[[bytes], bytes], data: bytes, most: int, seconds: float = SECONDS) -> bytes:
    """What `work` makes of `data`, at most `most` bytes. Raises Failed if it raises, crashes, or needs more than it may."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, of which the work uses none
        child = os.fork()
    if child == 0:
        _work(work, data, writable, seconds)
    os.close(writable)
    try:
        answer = _received(readable, most, time.monotonic() + seconds)
    finally:
        os.close(readable)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if answer is None:
        raise Failed(f"it takes more than {seconds:.0f} s, or gives more than {most} bytes")
    if answer[:1] == _DONE:
        return answer[1:]
    if answer[:1] == _FAILED:
        raise Failed(answer[1:].decode("utf-8", "backslashreplace"))
    raise Failed(f"what reads it ended by {signal.Signals(-status).name if status < 0 else f'itself with status {status}'}")


def _received(descriptor: int, most: int, end: float) -> bytes | None:
    """All that comes until the other end is closed; None if that is too much or takes too long."""
    pieces, size = list[bytes](), 0
    while (left := end - time.monotonic()) > 0 and size <= most:
        if select.select([descriptor], [], [], left)[0]:
            piece = os.read(descriptor, _PIECE)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
    return None


def _work(work: Callable[[bytes], bytes], data: bytes, writable: int, seconds: float) -> None:
    """The life of the child."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # the parent ends it
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(seconds) + 1)  # where the parent was killed
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # assertions of C++ are no lines for users
        _limit_memory()
        try:
            answer = _DONE + work(data)
        except BaseException as error:
            text = " ".join(str(error).split())[:200] or type(error).__name__
            answer = _FAILED + text.encode("utf-8", "backslashreplace")
        left = memoryview(answer)
        while left:
            left = left[os.write(writable, left) :]
    finally:
        os._exit(0)


def _limit_memory() -> None:
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _STATM.exists():
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = _PAGE * int(_STATM.read_text().split()[0]) + ROOM
        known = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *known]), hard))
