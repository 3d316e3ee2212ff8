"""Shared by all tests."""

import pytest

# contracts and other helpers assert too: their failures are to be explained like those of the tests
pytest.register_assert_rewrite("contracts", "killing")
