"""A second opinion: the cost of a module, counted from the operations that torch carries out while it runs.

It follows a run (nas/cost/operations.py) and knows nothing of our plans; where it agrees with a plan's count, both are right.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from nas.budget import Cost, Metric
from nas.cost.evaluation_mode import computed_once, fitting, left_as_it_was
from nas.cost.operations import counting
from nas.cost.storage import StoredTensor, file_bytes

METHOD = "operations of a run"
_STORED_TYPE = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.complex64: "C64",
}


def recount(module: nn.Module, example: Tensor) -> Cost:
    """Count macs, params, size_bytes and activations of `module` for the first image of `example` (N, C, H, W).

    Runs the module in evaluation mode and leaves it as it was. Operations without a rule are named in `Cost.uncounted`.
    """
    with left_as_it_was(module), torch.no_grad():
        module.eval()
        with computed_once(module), counting() as counted:
            module(fitting(module, example[:1]))
        work = counted.work
        values = {
            "macs": (work.macs, "multiply-adds"),
            "params": (sum(p.numel() for p in module.parameters()), "parameters"),
            "size_bytes": (state_bytes(module), "B"),
            "activations": (work.outputs, "elements"),
        }
    metrics = {name: Metric(value, unit, METHOD) for name, (value, unit) in values.items()}
    return Cost(metrics, tuple(sorted(work.unknown)))


def state_bytes(module: nn.Module) -> int:
    """Exact size in bytes of the safetensors file of the module's state dict, whatever its names and types."""
    state = module.state_dict().items()
    return file_bytes(StoredTensor(name, _STORED_TYPE[t.dtype], tuple(t.shape)) for name, t in state)
