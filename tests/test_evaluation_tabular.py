import pytest
from toy_space import ToySpace

from nas.errors import InvalidArchitecture
from nas.evaluation.tabular import TabularEvaluator

TOY = ToySpace()


def test_scores_are_looked_up():
    evaluate = TabularEvaluator({TOY.smallest().key: {"val_accuracy": 0.5, "loss": 1.0}})
    assert evaluate(TOY.smallest()) == {"val_accuracy": 0.5, "loss": 1.0}


def test_unknown_networks_are_refused():
    with pytest.raises(InvalidArchitecture, match=f"the table of 0 networks has no {TOY.largest().key} of space toy-1-"):
        TabularEvaluator({})(TOY.largest())
