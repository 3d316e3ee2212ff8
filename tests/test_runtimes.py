"""The runtimes: the contract of all, and what is one's own."""

import shutil
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch._inductor.config
from contracts.runtime import KernelContract, RuntimeContract, exported, numbers, tiny_plan

from nas.errors import InvalidSetting, MissingPackage
from nas.plan import ConvSpec, Plan, conv
from nas.runtimes import RUNTIMES, check, eager, named
from nas.runtimes.onnx_graph import onnx_bytes
from nas.runtimes.openvino import compiled_model
from nas.runtimes.ort import session
from nas.runtimes.plan_module import PlanModule
from nas.runtimes.runtime import Setting, random_images


def installed(name):
    try:
        return bool(RUNTIMES[name].version())
    except MissingPackage:
        return False


def needs(name):
    return pytest.mark.skipif(not installed(name), reason=f"the package of runtime {name} is not installed")


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


@pytest.fixture(autouse=True)
def threads():
    """Builds in torch set the threads of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["onnxruntime", "torch", pytest.param("openvino", marks=needs("openvino"))])
class TestKernelContract(KernelContract):
    """All that build quickly."""


@pytest.mark.parametrize("name", ["torch-compile"])
class TestRuntimeContract(RuntimeContract):
    """The compiler takes seconds for each kernel: one is built below."""


def test_each_runtime_keeps_a_contract():
    assert set(RUNTIMES) == {"onnxruntime", "torch", "torch-compile", "openvino"}


def small_plan(channels):
    return Plan(3, (8, 8), (conv("conv", "input", (3, channels), (8, 8), ConvSpec(3, act="hardswish")),))


# -- names and settings


def test_importing_loads_no_runtime():
    code = "import sys, nas.runtimes; assert not {'onnxruntime', 'openvino'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_runtime_is_refused_with_all_names():
    with pytest.raises(
        InvalidSetting, match="'tensorrt' is not known; choose one of onnxruntime, torch, torch-compile, openvino"
    ):
        named("tensorrt")
    with pytest.raises(InvalidSetting, match="'tensorrt'"):
        check("tensorrt", Setting())


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(InvalidSetting, match=f"device '{device}' is not known"):
        Setting(device=device)


@pytest.mark.parametrize("value", [{"batch": 0}, {"threads": -1}])
def test_batch_and_threads_are_positive(value):
    with pytest.raises(InvalidSetting, match="expected 1 or more"):
        Setting(**value)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackage, match=r"pip install netcarver\[openvino\]"):
        check("openvino", Setting())


# -- threads


def test_torch_sets_the_threads_of_the_process():
    for count in (2, 1):
        named("torch").build(tiny_plan(), Setting(threads=count))
        assert torch.get_num_threads() == count


def test_onnxruntime_has_the_threads_of_the_setting():
    options = session(onnx_bytes(tiny_plan()), Setting(threads=2)).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


@needs("openvino")
def test_openvino_has_the_threads_precision_and_shape_of_the_setting():
    model = compiled_model(onnx_bytes(tiny_plan(), 2), (2, 3, 8, 8), Setting(threads=2, batch=2))
    names = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "INFERENCE_PRECISION_HINT")
    assert [str(model.get_property(n)) for n in names] == ["2", "1", "<Type: 'float32'>"]
    assert list(model.input(0).shape) == [2, 3, 8, 8]


# -- torch


def test_eager_runs_the_module_channels_last():
    plan = small_plan(16)
    output = named("torch").build(plan, Setting(batch=2))()
    with torch.no_grad():
        expected = PlanModule(plan)(torch.from_numpy(random_images(plan, 2)))
    assert torch.allclose(output, expected, atol=1e-5)
    assert output.is_contiguous(memory_format=torch.channels_last) and not output.requires_grad


@pytest.mark.parametrize("source", ["plan", "file"])
def test_half_precision_is_near_to_single(source, tmp_path):
    module, images = PlanModule(tiny_plan()), torch.from_numpy(random_images(tiny_plan(), 2))
    setting = Setting(precision="bf16", batch=2)
    path = exported(module, ".pt2", tmp_path)
    kernel = named("torch").build(tiny_plan(), setting) if source == "plan" else named("torch").load(path, images, setting)
    assert kernel().dtype == torch.bfloat16
    with torch.no_grad():
        assert torch.allclose(numbers(kernel()), module(images), atol=0.2, rtol=0.05)


@compiler
def test_compiled_is_eager():
    """The first time on a machine this takes about 20 s."""
    plan = small_plan(24)
    compiled, uncompiled = (named(name).build(plan, Setting(batch=2))() for name in ("torch-compile", "torch"))
    assert torch.allclose(compiled, uncompiled, atol=1e-4)


def test_a_failing_compiler_is_named_with_the_remedy():
    with torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",), "force_disable_caches": True}):
        with pytest.raises(InvalidSetting, match="torch.compile failed on cpu in fp32 .*C.. compiler.*or use --runtime torch"):
            named("torch-compile").build(small_plan(32), Setting())


# -- CUDA graphs


@cuda
@pytest.mark.parametrize("precision", RUNTIMES["torch"].precisions["cuda"])
def test_a_cuda_graph_gives_what_the_processor_gives(precision):
    expected = numbers(named("torch").build(tiny_plan(), Setting(batch=2))())
    kernel = named("torch").build(tiny_plan(), Setting("cuda", precision, batch=2))
    kernel()
    torch.cuda.synchronize()
    assert torch.allclose(numbers(kernel().cpu()), expected, atol=0.2, rtol=0.05)


def test_a_capture_follows_warm_up_on_a_side_stream(monkeypatch):
    """Without a graphics card: the order of the calls that torch.cuda.graph asks for."""
    done = []

    @contextmanager
    def block(name):
        done.append(f"{name} begins")
        yield
        done.append(f"{name} ends")

    def stream(name):
        return SimpleNamespace(wait_stream=lambda other: done.append(f"{name} waits"))

    main, side = stream("main"), stream("side")
    monkeypatch.setattr(torch.cuda, "device", lambda device: block("device"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda used: block("side stream" if used is side else "other stream"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: done.append("replay")))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: block("capture"))

    def run(images):
        done.append("run")
        return images + 1

    kernel = eager.kernel(run, torch.ones(2), Setting("cuda"))
    warm_up = ["side waits", "side stream begins", *["run"] * eager.WARM_UPS, "side stream ends", "main waits"]
    capture = ["capture begins", "run", "capture ends"]
    assert done == ["device begins", *warm_up, *capture, "device ends"]
    assert kernel().tolist() == [2, 2] and done[-1] == "replay"
