"""What every runtime promises.

A test class inherits `RuntimeContract`, or `KernelContract` where building is quick, and gives a fixture `name` of RUNTIMES.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.export import write_format
from nas.errors import InvalidSetting
from nas.plan import ConvSpec, Layer, Plan, conv
from nas.runtimes import RUNTIMES, check, named
from nas.runtimes.plan_module import PlanModule
from nas.runtimes.runtime import Setting

FORMATS = {".onnx": "onnx", ".pt2": "pt2"}


def tiny_plan() -> Plan:
    """A convolution with a residual one, and a classifier of 5 classes, for images (3, 8, 8)."""
    first = conv("first", "input", (3, 8), (8, 8), ConvSpec(3, 2, act="relu"))
    second = conv("second", "first", (8, 8), (4, 4), ConvSpec(3, groups=8))
    total = Layer("total", "add", ("first", "second"), 8, 8, (4, 4), (4, 4), act="relu")
    pool = Layer("pool", "pool", ("total",), 8, 8, (4, 4), (1, 1))
    head = Layer("head", "linear", ("pool",), 8, 5, (1, 1), (1, 1), bias=True)
    return Plan(3, (8, 8), (first, second, total, pool, head))


def exported(module: nn.Module, suffix: str, folder: Path) -> Path:
    """Write `module` for images (3, 8, 8) in the format of a suffix."""
    path = folder / f"model{suffix}"
    write_format(FORMATS[suffix], module, torch.zeros(1, 3, 8, 8), path)
    return path


def numbers(output: object) -> Tensor:
    """What a kernel gives, in float32."""
    return torch.as_tensor(np.array(output) if isinstance(output, np.ndarray) else output).float()


class RuntimeContract:
    """What needs no kernel: its version, its precisions, and what it refuses."""

    def test_it_has_a_version_and_a_kind_of_files(self, name):
        version = named(name).version()
        assert isinstance(version, str) and version[0].isdigit()
        assert named(name).suffix in FORMATS

    def test_it_runs_fp32_on_the_processor_and_names_no_precision_twice(self, name):
        assert "fp32" in named(name).precisions["cpu"]
        for device, precisions in named(name).precisions.items():
            assert device in ("cpu", "cuda") and len(set(precisions)) == len(precisions)

    def test_what_it_offers_passes_the_check(self, name):
        for precision in named(name).precisions["cpu"]:
            check(name, Setting(precision=precision))

    def test_another_precision_is_refused_with_those_who_run_it(self, name):
        others = {p for runtime in RUNTIMES.values() for p in runtime.precisions["cpu"]} - set(named(name).precisions["cpu"])
        for precision in (*others, "fp7"):
            with pytest.raises(InvalidSetting) as caught:
                check(name, Setting(precision=precision))
            message = str(caught.value)
            assert repr(precision) in message and f"{', '.join(named(name).precisions['cpu'])} on cpu" in message
            able = [n for n, runtime in RUNTIMES.items() if precision in runtime.precisions["cpu"]]
            assert f"{precision} on cpu is run by {', '.join(able)}" in message if able else "no runtime runs fp7" in message

    def test_a_device_that_is_not_there_is_refused(self, name):
        with pytest.raises(InvalidSetting, match="cuda"):
            check(name, Setting(device="cuda:99"))

    def test_a_file_that_is_missing_or_of_another_kind_is_refused(self, name, tmp_path):
        runtime = named(name)
        with pytest.raises(InvalidSetting, match="there is no file .*export"):
            runtime.load(tmp_path / f"none{runtime.suffix}", torch.zeros(1, 3, 8, 8), Setting())
        with pytest.raises(InvalidSetting, match=rf"model.bin' is no {runtime.suffix} file"):
            runtime.load(tmp_path / "model.bin", torch.zeros(1, 3, 8, 8), Setting())

    def test_a_plan_that_cannot_be_built_is_refused(self, name):
        layer = Layer("strange", "cumsum", ("input",), 3, 3, (8, 8), (8, 8))
        with pytest.raises(InvalidSetting, match=r"'strange' \(cumsum\)"):
            named(name).build(Plan(3, (8, 8), (layer,)), Setting())


class KernelContract(RuntimeContract):
    """Kernels of plans and of files."""

    def test_a_kernel_of_each_precision_gives_a_batch_of_logits(self, name):
        for precision in named(name).precisions["cpu"]:
            output = numbers(named(name).build(tiny_plan(), Setting(precision=precision, batch=3))())
            assert output.shape == (3, 5) and output.isfinite().all() and output.abs().min() > 0

    def test_a_plan_built_twice_is_one_network(self, name):
        first, second = (numbers(named(name).build(tiny_plan(), Setting(batch=2))()) for _ in range(2))
        assert torch.equal(first, second)

    def test_a_kernel_gives_the_same_each_time_beside_others(self, name):
        kernel = named(name).build(tiny_plan(), Setting(batch=2))
        before = numbers(kernel()).clone()
        named(name).build(tiny_plan(), Setting(batch=1))()
        assert torch.equal(numbers(kernel()), before)

    def test_building_leaves_the_global_generators_alone(self, name):
        before = (torch.get_rng_state().tolist(), repr(np.random.get_state()))  # noqa: NPY002
        named(name).build(tiny_plan(), Setting())()
        assert before == (torch.get_rng_state().tolist(), repr(np.random.get_state()))  # noqa: NPY002

    @pytest.mark.parametrize("batch", [1, 3])
    def test_a_file_gives_the_logits_of_its_module(self, name, batch, tmp_path):
        module = PlanModule(tiny_plan())
        images = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        path = exported(module, named(name).suffix, tmp_path)
        output = numbers(named(name).load(path, images, Setting(batch=batch))())
        with torch.no_grad():
            assert torch.allclose(output, module(images), atol=1e-3)
