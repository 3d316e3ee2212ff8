"""Folders of small images for tests."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data.config import DataConfig
from nas.data.dataset import Dataset
from nas.data.load import load
from nas.errors import InvalidData

SIDE = 10


def write_image(path: Path, number: int, mode: str = "RGB") -> None:
    rng = np.random.default_rng(number)
    size = (SIDE + number % 3, SIDE + number % 5)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode).save(path)


def write_folder(root: Path, test: str = "test", classes: tuple[str, ...] = ("cat", "dog", "eel")) -> None:
    for c, name in enumerate(classes):
        for number in range(10):
            write_image(root / "train" / name / f"{number}.png", 100 * c + number, "L" if number == 3 else "RGB")
        write_image(root / test / name / "0.png", 1000 + c)


def loaded(folder: Path, workers: int = 0) -> Dataset:
    return load(DataConfig(f"imagefolder:{folder}", resolution=SIDE, workers=workers))


def refused(folder: Path) -> str:
    with pytest.raises(InvalidData) as caught:
        loaded(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def named(split) -> set[str]:
    """The paths of a view of files."""
    return {split.base.paths[i] for i in split.indices.tolist()}
