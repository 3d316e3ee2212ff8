"""Checkpoints as files: safetensors, or what torch.save wrote, read without running or importing code that they name.

Training scripts store their settings beside the weights: an argparse.Namespace, paths, numpy numbers, classes of their own.
torch reads such a file with `weights_only=True` where each class has been declared safe. What is declared here are inert
stand-ins of our own in place of all those classes: nothing of them is imported, and no tensor depends on them.
"""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas import weights
from nas.errors import CorruptRun, InvalidSetting
from nas.files import require_regular

MOST_CLASSES = 100  # of one file; each one costs another look at it
LINE = 200
REWRITE = "torch.save(model.state_dict(), 'weights.pt')"
# modules whose functions run code or reach out of the process: a checkpoint that names one is not to be trusted at all
_DANGEROUS = re.compile(
    r"(os|posix|nt|sys|subprocess|commands|builtins|importlib|runpy|pty|shutil|socket|ctypes|webbrowser|pickle|marshal|torch\.hub|"
    r"torch\.utils\.cpp_extension)\."
)
# what is harmless among the built-in names; enumerations are pickled as `getattr` of their class
_PLAIN = frozenset(
    f"builtins.{name}"
    for name in ("bytes", "slice", "range", "frozenset", "list", "dict", "tuple", "object", "type", "getattr")
)


class StandIn(list[Any]):
    """What a file says of an object that is neither a tensor nor a plain container: its class, arguments and state.

    It is a list, because torch appends items to lists alone.
    """

    full_name = ""
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, *args: object) -> None:
        super().__init__()
        self.args = args
        self.state: object = None

    def __new__(cls, *args: object) -> StandIn:  # noqa: D102 - pickles call it without __init__
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __eq__(self, other: object) -> bool:
        return self is other

    def __setstate__(self, state: object) -> None:
        self.state = state

    @property
    def is_module(self) -> bool:
        """Whether the object was a torch.nn.Module, with its weights inside."""
        return isinstance(self.state, Mapping) and "_parameters" in self.state


class Array(StandIn):
    """A numpy array, which `tensor` makes a tensor of."""

    def tensor(self) -> Tensor | None:
        """The numbers; None where the file tells no array of plain numbers."""
        match self.state:
            case (
                _,
                tuple() as shape,
                StandIn(args=(str() as code, *_), state=(_, str() as order, *_)),
                fortran,
                bytes() as data,
            ):
                if re.fullmatch(r"[fiu][1248]|b1", code) is None:
                    return None
                try:
                    flat = np.frombuffer(data, np.dtype(order + code)).astype(code)
                    return torch.from_numpy(flat.reshape(shape, order="F" if fortran else "C").copy())
                except (ValueError, TypeError):
                    return None
        return None


def _array(*_: object) -> Array:
    """Stands for numpy's function that makes an empty array to be filled."""
    return Array()


class _Mapping:
    """Stands for classes of mappings: torch adds entries to those of its own alone."""

    def __new__(cls, *_: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


# what stands for the classes that need more than to be remembered, or must be no mapping
_KNOWN: dict[str, Callable[..., object]] = {
    "collections.defaultdict": _Mapping,
    "numpy.dtype": StandIn,
    "numpy.ndarray": Array,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
}


def read_content(path: Path) -> object:
    """What a checkpoint holds, with tensors on the CPU. Raises InvalidSetting telling what the file is if it is none."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise InvalidSetting(f"cannot read weights {str(path)!r}: {error.strerror}; give a .safetensors or .pt file") from error
    if start[8:9] == b"{":
        return _read_safetensors(path)
    for known, (kind, remedy) in FOREIGN.items():
        if re.match(known, start, re.IGNORECASE):
            raise InvalidSetting(f"{str(path)!r} is {kind} and holds no weights; {remedy}")
    _check_archive(path)
    return _read_torch(path)


FOREIGN: dict[bytes, tuple[str, str]] = {
    rb"\Z": ("an empty file", "fetch it again"),
    rb"version https://git-lfs": ("a Git LFS pointer", "fetch the file that it stands for with: git lfs pull"),
    rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|!--)": (
        "a web page (HTML)",
        "the download ended at a page about the file or at a login: take the link to the file itself",
    ),
    rb"(\xef\xbb\xbf)?\s*<(\?xml|error|[a-z]+[ >])": (
        "XML, such as a server answers with",
        "look into it, and fetch the file again",
    ),
    rb"\s*[{\[]\s*[\"}\]{]": ("JSON text", "give the .safetensors or .pt file that belongs to it"),
    rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd": (
        "a compressed file",
        "unpack it, and give the weights that are in it",
    ),
    rb"\x89HDF": ("an HDF5 file, as Keras writes", "give weights of PyTorch"),
    rb"\x93NUMPY": ("a numpy array", f"give a state dict: {REWRITE}"),
    rb"\x08[\x01-\x0f]\x12.{0,64}(pytorch|onnx|tf2onnx)": (
        "an ONNX graph",
        f"give the weights of the module that it came from: {REWRITE}",
    ),
}


# -- the two kinds of files


def _read_safetensors(path: Path) -> object:
    try:
        return weights.load(path)
    except CorruptRun as error:
        raise InvalidSetting(f"{error}; or fetch it again") from error


def _check_archive(path: Path) -> None:
    """Raise InvalidSetting for archives that are no checkpoints; torch would advise to switch its safety off."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no archive, or a torn one, which torch tells of
    if any(name.endswith("/constants.pkl") for name in names):
        remedy = "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt')"
        raise InvalidSetting(f"{str(path)!r} is a TorchScript program, which holds code; write its tensors alone: {remedy}")
    if not any(name.endswith("data.pkl") for name in names) or any(name.endswith("models/model.json") for name in names):
        few = ", ".join(names[:3]) or "nothing"
        raise InvalidSetting(f"{str(path)!r} is an archive without a state dict (it holds {few}); give what {REWRITE} writes")


def _read_torch(path: Path) -> object:
    """Read what torch.save wrote; classes are declared one after the other, as the file turns out to name them."""
    declared, as_mappings = dict(_KNOWN), False
    for _ in range(MOST_CLASSES):
        try:
            with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in declared.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            name = _named(str(error))
            if name and _DANGEROUS.match(name) and name not in _PLAIN:
                raise InvalidSetting(
                    f"weights {str(path)!r} name {name}, which runs code and belongs in no checkpoint; nothing of it was run: "
                    "do not use this file, and fetch it from whom you trust"
                ) from error
            if name and name not in declared:
                declared[name] = _Mapping if as_mappings else type("StandIn", (StandIn,), {"full_name": name})
            elif "Can only SETITEM" in str(error) and not as_mappings:
                as_mappings = True
                declared = {name: _KNOWN.get(name, _Mapping) for name in declared}
            else:
                raise _unreadable(path, error) from error
        except Exception as error:  # a spoiled pickle can raise anything
            raise _unreadable(path, error) from error
    raise InvalidSetting(f"weights {str(path)!r} name more than {MOST_CLASSES} classes; write the tensors alone: {REWRITE}")


def _named(message: str) -> str | None:
    """The class or function that torch refuses, by its full name."""
    if blocked := re.search(r"unsupported GLOBAL (\S+) whose module", message):
        return blocked[1]
    refused = re.search(r"GLOBAL (\S+) was not an allowed", message)
    if refused is None:
        return None
    return refused[1] if "." in refused[1] else f"builtins.{refused[1]}"


def _unreadable(path: Path, error: Exception) -> InvalidSetting:
    # torch begins with advice to load the file unsafely; what happened comes last
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    told = [
        line for line in lines if "weights_only" not in line and not line.startswith(("Check the documentation", "Please file"))
    ]
    reason = told[0][:LINE] if told else type(error).__name__
    return InvalidSetting(
        f"{str(path)!r} is neither a safetensors file nor a state dict of PyTorch ({reason}); write it again with {REWRITE}"
    )
