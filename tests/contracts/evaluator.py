"""What every evaluator promises.

A test class inherits `EvaluatorContract` and gives fixtures `evaluator` and `archs`, some architectures that it knows.
"""

import math
import random

import numpy as np
import torch


class EvaluatorContract:
    """Scores are fractions, functions of the architecture alone, and leave nothing behind."""

    def test_scores_are_finite_and_hold_the_validation_accuracy(self, evaluator, archs):
        for arch in archs:
            scores = evaluator(arch)
            assert 0 <= scores["val_accuracy"] <= 1
            assert all(isinstance(name, str) and math.isfinite(value) for name, value in scores.items())

    def test_equal_calls_give_equal_scores_in_any_order(self, evaluator, archs):
        first = {arch: dict(evaluator(arch)) for arch in archs}
        again = {arch: dict(evaluator(arch)) for arch in reversed(archs)}
        assert first == again

    def test_global_generators_are_left_alone(self, evaluator, archs):
        def states():
            return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002

        before = states()
        evaluator(archs[0])
        assert states() == before
