import subprocess
import sys

import pytest
from contracts.searcher import SearcherContract

from nas.search import SEARCHERS

# a few more than the networks that each draws at first
STEPS = {"random": 10, "evolution": 24, "regularized-evolution": 34, "local-search": 15, "optuna-tpe": 15, "optuna-nsga2": 24}


@pytest.mark.parametrize("name", SEARCHERS)
class TestSearchers(SearcherContract):
    @pytest.fixture
    def make(self, name):
        return lambda problem: SEARCHERS[name](problem, None)

    @pytest.fixture
    def steps(self, name):
        return STEPS[name]


def test_names():
    assert list(SEARCHERS) == ["random", "evolution", "regularized-evolution", "local-search", "optuna-tpe", "optuna-nsga2"]


def test_optuna_is_loaded_when_it_is_used():
    code = "import sys, nas.search, nas.search.loop, nas.search.select; assert not {'optuna', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
