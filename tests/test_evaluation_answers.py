"""Accuracy by class and confusion matrix, against counts that are made one image at a time."""

import json

import numpy as np
import pytest
import torch
from networks import blobs
from torch import nn

from nas.accuracy import standard_error
from nas.evaluation.answers import CONFUSED, MATRIX, Answers, answers_of, collected
from nas.evaluation.supernet import accuracy


def drawn(classes: int, images: int = 5000) -> Answers:
    rng = np.random.default_rng(classes)
    true = rng.integers(0, classes, images)
    return Answers(true, np.where(rng.random(images) < 0.7, true, rng.integers(0, classes, images)), classes)


@pytest.mark.parametrize("classes", [2, 5, MATRIX])
def test_each_image_is_counted_once_by_its_class(classes: int) -> None:
    answers, names = drawn(classes), [f"class {i}" for i in range(classes)]
    matrix = np.zeros((classes, classes), dtype=int)
    for true, told in zip(answers.true, answers.told, strict=True):
        matrix[true, told] += 1
    found = answers.to_json(names)
    assert found["confusion"] == matrix.tolist() and json.dumps(found)
    assert found["value"] == answers.accuracy == np.trace(matrix) / 5000 and found["images"] == 5000
    assert found["standard_error"] == standard_error(found["value"], 5000)
    for i, row in enumerate(found["per_class"]):
        assert (row["name"], row["images"], row["right"]) == (names[i], matrix[i].sum(), matrix[i, i])
        assert row["accuracy"] == matrix[i, i] / matrix[i].sum()
        assert row["standard_error"] == standard_error(row["accuracy"], row["images"])
    assert found["balanced"] == pytest.approx(np.mean(np.diag(matrix) / matrix.sum(1)))
    np.fill_diagonal(matrix, 0)
    expected = sorted(matrix[matrix > 0].tolist(), reverse=True)[:CONFUSED]
    assert [count for _, _, count in found["confused"]] == expected
    for true, told, count in found["confused"]:
        assert matrix[names.index(true), names.index(told)] == count


def test_of_many_classes_no_matrix_is_written() -> None:
    found = drawn(1000).to_json([str(i) for i in range(1000)])
    assert "confusion" not in found and len(found["per_class"]) == 1000 and len(found["confused"]) == CONFUSED
    assert len(json.dumps(found)) < 200_000


def test_classes_without_images_have_no_accuracy() -> None:
    found = Answers(np.array([0, 0, 2]), np.array([0, 2, 2]), 4).to_json("abcd")
    assert found["per_class"][1] == {"name": "b", "images": 0, "right": 0} and found["balanced"] == 0.75


def test_a_module_answers_as_its_accuracy_says() -> None:
    data = blobs()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    answers = answers_of(module, data.val, data, 8)
    assert answers.accuracy == accuracy(module, data.val, data, 8)
    assert answers.true.tolist() == data.val.labels.tolist() and answers.classes == 3
    batches = [(torch.tensor([1, 0]), torch.tensor([1, 1])), (torch.tensor([2]), torch.tensor([2]))]
    assert collected(batches, 3).accuracy == 2 / 3
