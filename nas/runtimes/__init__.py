"""The runtimes that latencies are measured in, by the names of the command line."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nas.errors import InvalidSetting, MissingPackage, not_known
from nas.runtimes.compiled import Compiled
from nas.runtimes.eager import Eager
from nas.runtimes.openvino import OpenVino
from nas.runtimes.ort import OnnxRuntime
from nas.runtimes.runtime import Runtime, Setting

RUNTIMES: Mapping[str, Runtime] = {
    "onnxruntime": OnnxRuntime(),
    "torch": Eager(),
    "torch-compile": Compiled(),
    "openvino": OpenVino(),
}


def named(name: str) -> Runtime:
    """The runtime of that name. Raises InvalidSetting listing all."""
    if name not in RUNTIMES:
        raise InvalidSetting(f"runtime {not_known(name, RUNTIMES)}")
    return RUNTIMES[name]


def check(name: str, setting: Setting) -> None:
    """Check that a runtime is installed, runs the precision on the device, and that the device is there.

    Raises InvalidSetting, naming the precisions that it runs and the runtimes that run the wanted one, and MissingPackage.
    """
    runtime = named(name)
    if setting.precision not in runtime.precisions.get(setting.device_type, ()):
        raise InvalidSetting(_not_offered(name, setting))
    runtime.version()
    if setting.device_type == "cuda" and (torch.device(setting.device).index or 0) >= torch.cuda.device_count():
        raise InvalidSetting(
            f"device {setting.device!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices; use cpu"
        )


def runs(name: str, setting: Setting) -> bool:
    """Whether `check` passes, for a name that may be no runtime of ours."""
    if name not in RUNTIMES:
        return False
    try:
        check(name, setting)
    except (InvalidSetting, MissingPackage):
        return False
    return True


def _not_offered(name: str, setting: Setting) -> str:
    wanted, device = setting.precision, setting.device_type
    offers = "; ".join(f"{', '.join(found)} on {where}" for where, found in RUNTIMES[name].precisions.items())
    others = [other for other, runtime in RUNTIMES.items() if wanted in runtime.precisions.get(device, ())]
    remedy = f"{wanted} on {device} is run by {', '.join(others)}" if others else f"no runtime runs {wanted} on {device}"
    return f"runtime {name!r} does not run precision {wanted!r} on {device}, it runs {offers}; {remedy}"
