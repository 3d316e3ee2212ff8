"""Shared by all tests."""

import functools
import os

# the networks of the tests are too small for several threads, which only wait for each other on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def own_tables(monkeypatch, tmp_path_factory):
    """Latency tables of tests are not the user's."""
    monkeypatch.setenv("NETCARVER_TABLES", str(tmp_path_factory.getbasetemp() / "tables"))


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """Nor is the code that they trust."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        yield


@pytest.fixture(scope="session", autouse=True)
def operators_read_once():
    """torch's ONNX exporter reads the sources of its 500 operators for every file, most of the time that a small one takes."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # it is the exporter's own matter, and not every version's
        return
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


# contracts and other helpers assert too: their failures are to be explained like those of the tests
pytest.register_assert_rewrite("contracts", "killing")
