"""What benchmarks.strangers calls delivered, refused, or a fault."""

import json

import numpy as np
import pytest
from onnx import helper

from benchmarks import strange_data, strangers
from benchmarks.strange_networks import NETWORKS, QUANTIZED

CASES = [
    (0, "nas: error: in the middle\nfiles in runs/prune-1", "", ("delivered", "")),
    (0, "files in runs/prune-1", "breaks the budget", ("fault", "breaks the budget")),
    (2, "nas: x\nnas: error: give another --shape", "", ("refused", "give another --shape")),
    (3, "nas: error: no cut keeps 60%", "", ("refused", "no cut keeps 60%")),
    (2, "Usage: nas", "", ("fault", "exit status 2: Usage: nas")),
    (4, "nas: error: does not hold", "", ("fault", "exit status 4: nas: error: does not hold")),
    (1, "Traceback (most recent call last):\nKeyError: 3", "", ("fault", "traceback: KeyError: 3")),
    (None, "nas: analysing", "", ("fault", "time is up; the last line: nas: analysing")),
    (-9, "", "", ("fault", "exit status -9: nothing was said")),
]


@pytest.mark.parametrize(("status", "text", "wrong", "expected"), CASES)
def test_outcomes(status, text, wrong, expected):
    assert strangers.judged(status, text, lambda: wrong) == expected


def test_totals_and_rows():
    rows = [strangers.Outcome("a", "delivered", "", 1.5, 900), strangers.Outcome("b", "fault", "time is up", 300, 2000)]
    assert strangers.totals(rows) == {"cases": 2, "delivered": 1, "refused": 0, "fault": 1, "faults": ["b"]}
    assert strangers.row(rows[1]).split() == ["b", "fault", "300.0", "s", "2000", "MB", "time", "is", "up"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that delivered a network."""
    path = tmp_path_factory.mktemp("run")
    (path / "best").mkdir()
    nodes = [helper.make_node("GlobalAveragePool", ["images"], ["mean"]), helper.make_node("Flatten", ["mean"], ["logits"])]
    sides = [
        helper.make_tensor_value_info(name, 1, shape) for name, shape in (("images", ["n", 3, 8, 8]), ("logits", ["n", 3]))
    ]
    model = helper.make_model(helper.make_graph(nodes, "mean", sides[:1], sides[1:]), ir_version=10)
    model.opset_import[0].version = 18
    (path / "best" / "model.onnx").write_bytes(model.SerializeToString())
    return path


def test_what_is_delivered_is_looked_at(run):
    summary = {
        "verified": True,
        "budget": [{"ok": True}],
        "original": {"metrics": {"macs": 100}},
        "best": {"metrics": {"test_accuracy": 0.5}},
    }
    (run / "summary.json").write_text(json.dumps(summary))
    assert strangers.checked(100)(run) == strangers.checked(None)(run) == ""
    assert (
        strangers.checked(200, 0.9)(run)
        == "100 multiply-adds were counted, 200 are right; test accuracy 50.0%, at least 90% is right"
    )
    (run / "summary.json").write_text(json.dumps({**summary, "budget": [{"ok": False}]}))
    assert "breaks the budget" in strangers.checked(None)(run)


def test_cases_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(strange_data, "DATA", dict.fromkeys(strange_data.DATA, str))  # nothing is written
    names = [case.name for case in strangers.cases(tmp_path / "none", tmp_path)]
    assert len(names) == len(set(names)) == len(NETWORKS) + len(QUANTIZED) + len(strange_data.DATA)
    assert set(QUANTIZED) <= set(NETWORKS)


def test_mirrored_images_are_of_the_other_class():
    drawn = [strange_data.halves(np.random.default_rng(0), label).mean((0, 2)) for label in (0, 1)]
    assert drawn[0][:12].mean() > 2 * drawn[0][12:].mean() and drawn[1][12:].mean() > 2 * drawn[1][:12].mean()
