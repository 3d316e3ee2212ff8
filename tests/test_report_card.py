import pytest
from report_run import EVIL, config, finish, start, verify_json

from nas.report.card import model_card
from nas.report.contents import read_contents
from nas.report.words import answer, axis_of, duration, name_of, provenance, show


@pytest.fixture
def finished(tmp_path):
    with start(tmp_path / "search-1") as run:
        yield run, finish(run)


# -- words


def test_metrics_in_words():
    assert show("macs", 2.91e6) == "2.91 MFLOPs" and show("val_accuracy", 0.98333) == "98.3%" and show("params", None) == "–"
    assert show("val_loss", 0.1351783) == "0.135178" and provenance("val_loss", None) == "on the validation images"
    assert name_of("latency_ms@pixel3") == "latency on pixel3" and name_of("macs") == "multiply-adds"
    assert [duration(s) for s in (8.44, 59.97, 125.2, 11_520)] == ["8.4 s", "1 min 0 s", "2 min 5 s", "3 h 12 min"]


@pytest.mark.parametrize(
    ("metric", "limit", "label", "factor"),
    [
        ("macs", 3e6, "multiply-adds (M)", 1e-6),
        ("macs", 1.2e9, "multiply-adds (G)", 1e-9),
        ("params", 900, "parameters", 1),
        ("size_bytes", 2e6, "stored weights (MB)", 1e-6),
        ("latency_ms@pixel3", 15, "latency on pixel3 (ms)", 1),
        ("val_accuracy", 1, "validation accuracy (%)", 100),
    ],
)
def test_axes_have_units(metric, limit, label, factor):
    axis = axis_of(metric, [], [limit])
    assert (axis.label, axis.factor) == (label, pytest.approx(factor))


def test_the_budgeted_cost_leads_the_answer(finished):
    run, summary = finished
    size = {"text": "300kB", "metric": "size_bytes", "limit": 3e5, "value": 260_312, "ok": True}
    broken = {"text": "0.3ms", "metric": "latency_ms", "limit": 0.3, "value": 0.41, "ok": False}
    run.write_json("summary.json", {**summary, "budget": [size, broken]})
    macs = show("macs", summary["best"]["metrics"]["macs"])
    assert answer(read_contents(run)) == (
        f"260.3 kB stored weights, 0.41 ms latency, {macs} (multiply-adds), 98.3% test: keeps 300kB, breaks 0.3ms"
    )


# -- the model card


def test_card_holds_what_is_known(finished):
    _, summary = finished
    card = model_card(summary, config(), verify_json(summary["best"]))
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert "license: unknown" in head and "library_name: pytorch" in head and '"value": 0.9833' in head
    assert "| 3MFLOPs | multiply-adds | 3 MFLOPs |" in body and "| kept |" in body
    assert "| latency | 0.41 ms | median, interquartile range 0.02 ms, onnxruntime, 1 thread |" in body
    assert "| onnx: same class | 1 | passed | 144 images |" in body
    assert "| s0.b0 | kernel 3, act relu |" in body
    for fact in ("f00d", "seed: 7", "nas search --budget 3MFLOPs", "float32 (N, 1, 8, 8)", "mean [0.3]", "torch 2.15.0"):
        assert fact in body


def test_card_leaves_out_what_is_not_known(finished):
    _, summary = finished
    del summary["best"]["metrics"]["test_accuracy"], summary["best"]["metrics"]["latency_ms"]
    card = model_card({"best": summary["best"]}, {}, {})
    assert "test accuracy" not in card and "latency" not in card and "None" not in card
    assert "## Budget" not in card and "model-index" not in card


def test_card_escapes_text_from_outside(finished):
    _, summary = finished
    evil = config(
        argv=f"{EVIL}\n```\n# x", space={"name": EVIL, "version": 1}, data={**config()["data"], "name": f"{EVIL}\n---"}
    )
    card = model_card(summary, evil, {})
    outside_code = "".join(card.split("---\n", 2)[2].split("```")[::2])
    assert "<img" not in outside_code
    assert all(line.count(" | ") == line.count("|") - 2 for line in card.splitlines() if line.startswith("| s0"))
    assert card.count("\n---\n") == 1
