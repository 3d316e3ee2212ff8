import math

import numpy as np
import pytest

from nas.accuracy import standard_error, with_error


@pytest.mark.parametrize(("right", "images"), [(90, 100), (287, 360), (5, 9), (1, 2)])
def test_the_standard_error_is_that_of_a_binomial(right: int, images: int) -> None:
    share = right / images
    assert standard_error(share, images) == pytest.approx(math.sqrt(share * (1 - share) / images), rel=1e-12)
    answers = np.r_[np.ones(right), np.zeros(images - right)]
    assert standard_error(share, images) == pytest.approx(answers.std() / math.sqrt(images), rel=1e-12)


def test_all_right_is_no_certainty() -> None:
    expected = pytest.approx(math.sqrt(8.5 * 0.5) / 9 / 3)
    assert standard_error(1.0, 9) == expected and standard_error(0.0, 9) == expected
    assert standard_error(1.0, 10_000) < 1e-4 and standard_error(0.5, 0) == math.inf


def test_it_is_written_behind_the_accuracy() -> None:
    assert with_error(0.993, 287) == "99.30% ± 0.49%" and with_error(0.9, 100, 1) == "90.0% ± 3.0%"
    assert with_error(0.993, None) == "99.30%"
