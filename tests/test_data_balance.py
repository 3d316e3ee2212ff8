import torch

from nas.data.balance import doubts
from nas.data.dataset import ArraySplit, Dataset, stratified_split


def doubts_of(counts: list[int]) -> tuple[str, ...]:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    split = ArraySplit(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels)
    rest, chosen = stratified_split(labels, 0.1, 0)
    names = tuple("abcdefgh"[: len(counts)])
    parts = split.take(rest), split.take(chosen)
    return doubts(Dataset("x", *parts, lambda: split, names, 1, 2, (0.0,), (1.0,), None, "x"))


def test_few_or_unbalanced_images_are_doubted() -> None:
    assert doubts_of([1000, 1000]) == doubts_of([2000, 1000, 700]) == ()
    (few,) = doubts_of([30, 30, 30])
    assert few == (
        "only 9 validation images: the standard error of an accuracy of 90% is 10.0 points, and networks closer than that "
        "cannot be told apart; give more images"
    )
    few, unbalanced = doubts_of([1196, 2, 2])
    assert few.startswith("only 122 validation images")
    assert unbalanced == (
        "unbalanced classes: 'b' has 1 training and 1 validation image, 'c' has 1 training and 1 validation image; an accuracy "
        "of 98.36% means no more than answering 'a' always: look at the accuracy of each class"
    )
    (unbalanced,) = doubts_of([9000] + [200] * 5)
    assert "'d' has 180 training and 20 validation images, and 2 more;" in unbalanced
