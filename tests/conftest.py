"""Shared by all tests."""

import os

# the networks of the tests are too small for several threads, which only wait for each other on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def own_tables(monkeypatch, tmp_path_factory):
    """Latency tables of tests are not the user's."""
    monkeypatch.setenv("NETCARVER_TABLES", str(tmp_path_factory.getbasetemp() / "tables"))


# contracts and other helpers assert too: their failures are to be explained like those of the tests
pytest.register_assert_rewrite("contracts", "killing")
