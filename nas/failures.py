"""What the machine failed at, in one line: a full disk, a missing permission, no memory, a folder that disappeared."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.errors import MachineFailed

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space of your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "give yourself the permission, or choose another folder",
    errno.EPERM: "give yourself the permission, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "a folder is in the place of the file: move it away",
    errno.ENOTDIR: "a file is in the place of the folder: move it away",
    errno.ENOENT: "it, or its folder, does not exist (any more): restore it",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free some memory",
    errno.EIO: "look after the disk",
    errno.EINVAL: "put a regular file in its place",
    errno.ELOOP: "mend the links that lead to it",
    errno.EADDRINUSE: "choose another port",
}
MEMORY_REMEDY = "free some memory or raise its limit, or choose a smaller --batch-size, --resolution or network"
# of torch, oneDNN, onnxruntime, C++ and the threads of Python; none of them has an error of its own for it
_MEMORY = re.compile(
    r"allocate memory|not enough memory|bad_alloc|bad allocation|out of memory|unable to mmap|cannot allocate|CUDA out of mem"
    r"|failed to map segment"
    r"|could not create a (memory|primitive)|start new thread|std::system_error|Resource temporarily unavailable",
    re.IGNORECASE,
)
_WITHOUT_MEMORY = (RuntimeError, SystemError, ImportError)
_MOST_CAUSES = 20
LONGEST_NAME = 500  # characters of a path that are told
PROBE = 1 << 20  # bytes
# with less memory than this torch and OpenBLAS end the process while they are loaded, and nothing can be told
LEAST_MEMORY = 700 << 20


def machine_failure(error: BaseException) -> MachineFailed | None:
    """The failure of the machine that an error is, or was caused by; None for other errors."""
    for cause in _causes(error):
        if isinstance(cause, MachineFailed):
            return cause
        if isinstance(cause, OSError) and cause.errno is not None:
            return MachineFailed(_told(cause))
        if isinstance(cause, MemoryError) or (isinstance(cause, _WITHOUT_MEMORY) and _MEMORY.search(str(cause))):
            return MachineFailed(f"the memory ran out ({_first_line(cause)}); {MEMORY_REMEDY}")
    return None


def require_memory() -> None:
    """Raise MachineFailed where a limit of this process leaves too little memory to begin: later, errors tell of it."""
    if resource is None:  # not on this system
        return
    for name, option in ((resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")):
        limit = resource.getrlimit(name)[0]
        if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
            raise MachineFailed(
                f"the memory of this process is limited to {limit >> 20} MB, which is too little to load torch; raise it "
                f"(ulimit {option} unlimited)"
            )


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Errors of the operating system within the block are of `path` where they name no file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def probe(folder: Path) -> None:
    """Raise OSError if nothing can be written into `folder`: libraries tell of full disks in words of their own."""
    with about(folder), tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(PROBE))
        file.flush()
        os.fsync(file.fileno())


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it came from."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _told(error: OSError) -> str:
    number = error.errno or 0
    reason = error.strerror or os.strerror(number)
    name = error.filename if error.filename2 is None else error.filename2
    where = repr(_short(os.fsdecode(name))) if isinstance(name, str | bytes | os.PathLike) else "a file"
    return f"{where} cannot be read or written ({reason}); {REMEDIES.get(number, 'mend that and try again')}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:120] or type(error).__name__
