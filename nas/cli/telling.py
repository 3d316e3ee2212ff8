"""What is said first of the data: how they were read, what is doubtful in them, how training images are varied."""

from __future__ import annotations

from nas.cli.progress import log
from nas.data.augment import Augmentation
from nas.data.balance import doubts
from nas.data.dataset import Dataset
from nas.report.augmentation import augmentation_words


def tell_data(data: Dataset, augmentation: Augmentation | None, flip: bool | None) -> None:
    """Log a line for each; `augmentation` is None where nothing is trained, `flip` is what the user said of mirroring."""
    for note in data.notes:
        log(note)
    for doubt in doubts(data):
        log(f"warning: {doubt}")
    if augmentation is not None:
        log(augmentation_line(data, augmentation, flip))


def augmentation_line(data: Dataset, augmentation: Augmentation, flip: bool | None) -> str:
    """How training images are varied; whether mirroring keeps the class of own data only the user can know."""
    remedy = "; --flip if a mirrored image keeps its class" if data.flip is None and flip is None else ""
    return f"training images: {augmentation_words(vars(augmentation))}{remedy}"


def noted(data: Dataset) -> list[str]:
    """What reports and cards repeat of the data."""
    return [*data.notes, *doubts(data)]
