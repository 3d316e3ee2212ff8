"""What is doubtful in a data set before anything is trained on it: few images to judge by, and classes with too few."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nas.accuracy import standard_error
from nas.data.dataset import Dataset

FEW = 200  # validation images: at 90% the standard error is over 2 points
# of the even share: a class with less is hardly heard in an accuracy
UNDER = 0.25
_NAMED = 3


def doubts(data: Dataset) -> tuple[str, ...]:
    """Sentences on what accuracies of this data set do not tell, none where there is no doubt."""
    trained, judged = (torch.bincount(s.labels.cpu(), minlength=data.classes).tolist() for s in (data.train, data.val))
    return (*_few(sum(judged)), *_unbalanced(data.class_names, trained, judged))


def _few(images: int) -> tuple[str, ...]:
    if images >= FEW:
        return ()
    error = 100 * standard_error(0.9, images)
    return (
        f"only {images} validation images: the standard error of an accuracy of 90% is {error:.1f} points, and networks closer "
        "than that cannot be told apart; give more images",
    )


def _unbalanced(names: Sequence[str], trained: Sequence[int], judged: Sequence[int]) -> tuple[str, ...]:
    low = [i for i, count in enumerate(trained) if count < UNDER * sum(trained) / len(names)]
    if not low:
        return ()
    told = [f"{names[i]!r} has {trained[i]} training and {judged[i]} validation image{'s' * (judged[i] != 1)}" for i in low]
    more = f", and {len(low) - _NAMED} more" if len(low) > _NAMED else ""
    most = judged.index(max(judged))
    return (
        f"unbalanced classes: {', '.join(told[:_NAMED])}{more}; an accuracy of {judged[most] / sum(judged):.2%} means no more "
        f"than answering {names[most]!r} always: look at the accuracy of each class",
    )
