"""Accuracy by class, standard errors, and what is doubtful in the data, as the report, its digest and the card show them."""

from dataclasses import replace

import numpy as np
import pytest
from report_run import config, finish, start, trials

from nas.evaluation.answers import Answers
from nas.report.card import model_card
from nas.report.contents import read_contents
from nas.report.digest import report_markdown
from nas.report.page import report_html
from nas.report.words import answer

EVIL = "<img src=x>|"


@pytest.fixture
def contents(tmp_path):
    with start(tmp_path / "run") as run:
        for trial in trials(5):
            run.append_trial(trial.to_json())
        finish(run)
        return read_contents(run)


def scored(contents, names):
    true = np.arange(1000) % len(names)
    told = np.where(true == 0, 1, true)
    found = Answers(true, told, len(names)).to_json(names)
    told_of = {"test_accuracy": found, "val_accuracy": {"value": 0.9, "standard_error": 0.01, "images": 287}}
    changed = replace(contents, summary={**contents.summary, "scores": told_of})
    changed.best.metrics["test_accuracy"] = found["value"]
    return changed


def test_each_class_is_shown_with_its_standard_error(contents):
    shown = scored(contents, [EVIL, "b", "c", "d"])
    assert answer(shown).find("75.0% ± 1.4% test") > 0
    page, digest = report_html(shown), report_markdown(shown)
    assert "75.0% ± 1.4% of 1000 test images (± is the standard error); 75.0% if all classes count alike." in page
    assert '<td class="number">250</td><td class="number">0.0% ± 0.3%</td>' in page and EVIL not in page
    assert "| b | 250 | 100.0% ± 0.3% |" in digest and "| &lt;img src=x&gt;\\| | 0 | 250 | 0 | 0 |" in digest
    assert '<th scope="row">c</th><td class="number">0</td><td class="number">0</td><td class="number">250</td>' in page


def test_of_many_classes_the_pairs_that_are_confused_most_are_shown(contents):
    shown = scored(contents, [f"class {i}" for i in range(50)])
    page, digest = report_html(shown), report_markdown(shown)
    assert "50 classes" in page and "Pairs that are confused most" in page and "Confusion matrix" not in page
    assert "| class 0 | class 1 | 20 |" in digest


def test_the_card_has_standard_errors(contents):
    shown = scored(contents, ["a", "b", "c", "d"])
    card = model_card(shown.summary, config(), {})
    assert "| test accuracy | 75.0% ± 1.4% |" in card or "± 1.4% |" in card


def test_what_is_doubtful_in_the_data_stands_first(contents):
    shown = replace(contents, config={**contents.config, "notes": ["only 9 validation images", EVIL, 3]})
    page, digest = report_html(shown), report_markdown(shown)
    assert '<p class="notice">Data: only 9 validation images.</p>' in page and EVIL not in page
    assert "> Data: only 9 validation images." in digest
    assert "Data" not in report_markdown(replace(contents, config={**contents.config, "notes": 3})).split("##")[0]
