"""Where in a user's own code, or in a library that it calls, an error came from: messages name the line to mend."""

from __future__ import annotations

import importlib
import os
import traceback
from pathlib import Path

import torch

_ROOT = Path(__file__).resolve().parents[2]
# what carries out code of others: netcarver itself, torch with its tracer, and the import
_OURS = [_ROOT / name for name in ("nas", "compress", "search_spaces")]
_FOLDERS = [*_OURS, Path(torch.__file__).parent, Path(importlib.__file__).parent]
_CARRIERS = tuple(f"{folder}{os.sep}" for folder in _FOLDERS)


def place_of(error: BaseException) -> str:
    """The innermost line that is neither ours nor torch's, as ` at FILE:LINE in FUNCTION: CODE`; empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(("<", *_CARRIERS))]
    if not own:
        return ""
    last = own[-1]
    return f" at {last.filename}:{last.lineno} in {last.name}: {last.line}"


def remedy_of(error: BaseException) -> str:
    """What helps when a network cannot be traced for this reason."""
    text = str(error)
    for said, remedy in _REMEDIES.items():
        if said in text:
            return remedy
    return "check the shape, and keep control flow that depends on the values of tensors out of its forward"


_OF_VALUES = "keep control flow that depends on the values of tensors out of its forward"
# what is said in an error, and what helps then; the first that fits
_REMEDIES = {
    "besides the images": "give these arguments a default, or wrap it in a module whose forward takes the images alone",
    "depends on the values of tensors": _OF_VALUES,
    "used in control flow": _OF_VALUES,
    "same device": "put all of its tensors on one device",
}
