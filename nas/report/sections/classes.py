"""The accuracy of each class on the test images, and which classes are taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nas.accuracy import with_error
from nas.report.contents import Contents
from nas.report.parts import NOTHING, Section, folded, quiet, table

# a matrix of more classes is not for reading; summary.json has it up to 100
MATRIX = 20
Json = Mapping[str, Any]


def classes(contents: Contents) -> Section | None:
    """A row for each class, and the confusion matrix, or what is confused most."""
    test = tested(contents)
    if not test:
        return None
    rows = [[escape(str(row["name"])), str(row["images"]), _share(row)] for row in test["per_class"]]
    listed = table("Accuracy by class", ["class", "#test images", "#accuracy"], rows)
    content = quiet(escape(balanced_sentence(test))) + (
        listed if len(rows) <= MATRIX else folded(f"{len(rows)} classes", listed)
    )
    return Section("classes", "Accuracy by class", content + _confusion(test))


def tested(contents: Contents) -> Json:
    """What the summary has of the test images by class; empty where it has nothing."""
    found = contents.summary.get("scores", {}).get("test_accuracy", {})
    return found if found.get("per_class") else {}


def balanced_sentence(test: Json) -> str:
    """The accuracy, and what it would be if all classes counted alike."""
    return (
        f"{with_error(test['value'], test['images'], 1)} of {test['images']} test images (± is the standard error); "
        f"{test['balanced']:.1%} if all classes count alike."
    )


def _share(row: Json) -> str:
    return with_error(row["accuracy"], row["images"], 1) if row["images"] else NOTHING


def _confusion(test: Json) -> str:
    names = [str(row["name"]) for row in test["per_class"]]
    matrix: Sequence[Sequence[int]] = test.get("confusion", ())
    title = "<h3>What is taken for what</h3>"
    if matrix and len(names) <= MATRIX:
        rows = [[escape(name), *map(str, counts)] for name, counts in zip(names, matrix, strict=True)]
        note = quiet("Rows are the true classes, columns what the network says.")
        headings = ["true class", *(f"#{escape(name)}" for name in names)]
        return title + note + table("Confusion matrix", headings, rows, ["" for _ in rows])
    rows = [[escape(str(true)), escape(str(told)), str(count)] for true, told, count in test["confused"]]
    if not rows:
        return ""
    return title + table("Pairs that are confused most", ["true class", "~what the network says", "#test images"], rows)
