"""The digits that come with scikit-learn: 1,797 gray images of 8x8 pixels, no download."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nas.data.arrays import Arrays, ArraySource, Part, build
from nas.data.config import DataConfig
from nas.data.dataset import Dataset, stratified_split

TEST_FRACTION, TEST_SEED = 0.2, 0  # constants: the test images are the same in every run
LEAST_VALIDATION = 0.2


def load_digits(config: DataConfig) -> Dataset:
    """The data set `digits`; a fixed fifth of each class is the test split.

    A tenth of so small a set would be too few images to choose a network by, so that at least a fifth is for validation.
    """
    config = replace(config, val_fraction=max(config.val_fraction, LEAST_VALIDATION))
    return build(ArraySource(config.name, _read, flip=False), config)


def _read(part: Part) -> Arrays:
    import sklearn.datasets  # takes a second or two, which no other data set needs to wait for

    data = sklearn.datasets.load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    rest, test = stratified_split(torch.from_numpy(data.target), TEST_FRACTION, TEST_SEED)
    chosen = (rest if part == "train" else test).numpy()
    return Arrays(images[chosen], data.target[chosen])
