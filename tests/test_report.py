import csv
import io
import json
import struct
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from nas.architecture import Architecture
from nas.budget import Cost, Metric
from nas.errors import CorruptRun, InvalidSetting
from nas.report.card import model_card
from nas.report.contents import read_contents
from nas.report.figures import front_figure
from nas.report.page import report_html
from nas.report.plots import DPI, PANEL_INCHES
from nas.report.words import answer, axis_of, duration, name_of, show
from nas.report.write import write_report
from nas.rundir import RunDir
from nas.trial import Trial

EVIL = '</script><img src=x onerror="alert(1)"> | `boo`'
PNG_SIZE = tuple(round(inches * DPI) for inches in PANEL_INCHES)


def config(**changes) -> dict:
    data = {
        "name": "digits", "fingerprint": "f00d", "classes": 3, "class_names": ["zero", EVIL, "two"], "channels": 1,
        "resolution": 16, "mean": [0.3], "std": [0.4], "train": 1293, "val": 144,
    }  # fmt: skip
    return {
        "command": "search",
        "argv": "nas search --budget 3MFLOPs",
        "options": {"trials": 40, "data": EVIL},
        "seed": 7,
        "versions": {"python": "3.11.4", "torch": "2.15.0"},
        "device": {"type": "cpu", "name": "Abacus 9000"},
        "budgets": [{"text": "3MFLOPs", "metric": "macs", "limit": 3e6}],
        "objectives": ["macs"],
        "space": {"name": "mobilenet", "version": 1, "settings": {}},
        "data": data,
        **changes,
    }


def trials(n: int = 40) -> list[Trial]:
    """Accuracy grows with the logarithm of the cost, and with luck; every fifth network is over the budget."""
    rng = np.random.default_rng(3)
    result = []
    for number in range(n):
        macs = int(rng.uniform(3.1e6, 5e6) if number % 5 == 4 else rng.uniform(0.4e6, 2.99e6))
        cost = Cost({"macs": Metric(macs, "multiply-adds", "plan"), "params": Metric(macs // 20 + 3, "parameters", "plan")})
        choices = {"resolution": 8, "s0.width": 16 + number, "s0.b0.kernel": 3, "s0.b0.act": "relu"}
        accuracy = float(min(0.995, 0.55 + 0.06 * np.log(macs / 1e5) + rng.normal(0, 0.015) + 0.1))
        state, scores = ("infeasible", {}) if macs > 3e6 else ("complete", {"val_accuracy": accuracy})
        result.append(Trial(number, Architecture("mobilenet-1-abc", choices), state, cost, scores, 0.5))
    return result


def row(trial: Trial, **more: float) -> dict:
    metrics = {**trial.cost.values(), **trial.scores, **more}
    return {"key": trial.architecture.key, "architecture": trial.architecture.to_json(), "metrics": metrics}


def verify_json(best: dict) -> dict:
    macs = {"value": best["metrics"]["macs"], "unit": "multiply-adds", "method": "fvcore", "spread": None, "context": ""}
    latency = {"value": 0.41, "unit": "ms", "method": "median", "spread": 0.02, "context": "onnxruntime, 1 thread"}
    check = {"name": "onnx: same class", "ok": True, "value": 1.0, "expected": 1.0, "detail": "144 images"}
    return {"ok": True, "checks": [check], "budgets": [], "metrics": {"macs": macs, "latency_ms": latency}}


def start(path, **changes) -> RunDir:
    run = RunDir.create("search", config(**changes), out=path)
    for trial in trials():
        run.append_trial(trial.to_json())
    return run


def finish(run: RunDir) -> dict:
    """Write summary.json and verify.json as a search does; the front is that of read_contents, which is tested apart."""
    by_key = {t.architecture.key: t for t in trials()}
    front = [by_key[n.key] for n in read_contents(run).front]
    best = row(max(front, key=lambda t: t.scores["val_accuracy"]), latency_ms=0.41, size_bytes=260_312, test_accuracy=0.9833)
    budget = {"text": "3MFLOPs", "metric": "macs", "limit": 3e6, "value": best["metrics"]["macs"], "ok": True}
    summary = {
        "command": "search", "seed": 7, "versions": {}, "device": {}, "budget": [budget], "best": best,
        "front": [row(t) for t in front], "trials": 40, "seconds": 102.4,
    }  # fmt: skip
    run.write_json("summary.json", summary)
    run.write_json("best/verify.json", verify_json(best))
    return summary


@pytest.fixture
def interrupted(tmp_path):
    with start(tmp_path / "search-1") as run:
        yield run


@pytest.fixture
def finished(interrupted):
    return interrupted, finish(interrupted)


class Outside(HTMLParser):
    """Collects what a page would load, what it links, and the tags that it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")]

    def handle_data(self, data):
        if self.cdata_elem is None:
            self.text += data


def read_csv(run: RunDir) -> list[dict]:
    return list(csv.DictReader(io.StringIO((run.path / "front.csv").read_text())))


# -- the files


def test_writes_the_report_files_and_nothing_else(finished):
    run, _ = finished
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    written = write_report(RunDir.read(run.path))
    assert [p.name for p in written] == ["front.csv", "front.png", "report.html"]
    after = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    assert set(after) - set(before) == set(written)
    assert all(after[p] == data for p, data in before.items())


def test_a_second_report_has_the_same_bytes(finished):
    run, _ = finished
    first = [p.read_bytes() for p in write_report(run)]
    assert [p.read_bytes() for p in write_report(run)] == first


def test_csv_has_exactly_the_numbers_of_the_summary(finished):
    run, summary = finished
    write_report(run)
    rows = read_csv(run)
    assert list(rows[0]) == ["key", "macs", "params", "val_accuracy", "choices"]
    assert len(rows) == len(summary["front"]) > 2
    for line, network in zip(rows, summary["front"], strict=True):
        assert line["key"] == network["key"]
        assert json.loads(line["choices"]) == network["architecture"]["choices"]
        assert {m: json.loads(line[m]) for m in network["metrics"]} == network["metrics"]


def test_a_metric_that_was_not_taken_is_an_empty_cell_and_integers_stay_integers(finished):
    run, summary = finished
    summary["front"][1]["metrics"]["peak_bytes"] = 16384
    del summary["front"][0]["metrics"]["params"]
    run.write_json("summary.json", summary)
    write_report(run)
    first, second, *_ = read_csv(run)
    assert (first["peak_bytes"], second["peak_bytes"], first["params"]) == ("", "16384", "")
    assert second["params"] == str(summary["front"][1]["metrics"]["params"])


def test_png_has_the_size_of_its_panels(finished):
    run, summary = finished
    write_report(run)
    data = (run.path / "front.png").read_bytes()
    assert data.startswith(b"\x89PNG") and struct.unpack(">II", data[16:24]) == PNG_SIZE
    assert len(data) > 10_000


def test_each_objective_has_a_panel_and_a_figure(tmp_path):
    two = [{"text": "3MFLOPs", "metric": "macs", "limit": 3e6}, {"text": "90kparams", "metric": "params", "limit": 9e4}]
    with start(tmp_path / "run", objectives=["macs", "params"], budgets=two) as run:
        write_report(run)
    size = struct.unpack(">II", (run.path / "front.png").read_bytes()[16:24])
    assert size == (2 * PNG_SIZE[0], PNG_SIZE[1])
    assert (run.path / "report.html").read_text().count('id="front-') == 2


# -- the page


def test_page_loads_nothing_and_is_small_enough(finished):
    run, _ = finished
    write_report(run)
    page = (run.path / "report.html").read_text()
    seen = Outside(page)
    assert seen.loads == []
    assert not {"link", "img", "iframe", "object", "base"} & set(seen.tags)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 6_000_000


def test_page_says_what_the_run_found(finished):
    run, summary = finished
    write_report(run)
    text = " ".join(Outside((run.path / "report.html").read_text()).text.split())
    macs = show("macs", summary["best"]["metrics"]["macs"])
    assert f"{macs} (multiply-adds), 98.3% test: keeps 3MFLOPs" in text
    for phrase in (
        "✓ kept", "98.3%", "0.41 ms", "onnxruntime, 1 thread", "✓ passed", "nas search --budget 3MFLOPs", "f00d",
        "torch 2.15.0", "Abacus 9000", "1 min 42 s", "40 trials: 32 evaluated, 8 over the budget",
        "1293 training and 144 validation images",
    ):  # fmt: skip
        assert phrase in text
    assert all(network["key"] in text for network in summary["front"])
    assert "This run has not ended" not in text


def test_text_from_outside_is_escaped(tmp_path):
    budgets = [{"text": EVIL, "metric": "macs", "limit": 3e6}]
    with start(tmp_path / "run", argv=EVIL, budgets=budgets, space={"name": EVIL, "version": EVIL}) as run:
        write_report(run)
    page = (run.path / "report.html").read_text()
    assert "<img" not in page.replace("<img>", "")
    seen = Outside(page)
    assert "img" not in seen.tags and seen.tags.count("script") == 4
    assert EVIL in seen.text


def test_a_failed_verification_and_a_broken_budget_are_said_first(finished):
    run, summary = finished
    verdict = verify_json(summary["best"])
    verdict["checks"].append({"name": "macs as planned", "ok": False, "value": None, "expected": 3, "detail": "differs"})
    run.write_json("best/verify.json", {**verdict, "ok": False})
    summary["budget"] = [{"text": "2MB", "metric": "size_bytes", "limit": 2e6, "value": None, "ok": False}]
    run.write_json("summary.json", summary)
    contents = read_contents(run)
    assert answer(contents).endswith("98.3% test: breaks 2MB")
    text = Outside(report_html(contents)).text
    assert "Verification failed: macs as planned." in text
    assert "✗ broken" in text and "✗ failed" in text


def test_figure_holds_every_network_in_the_units_of_its_axes(finished):
    run, summary = finished
    contents = read_contents(run)
    tried, front, best = json.loads(front_figure(contents, "macs"))["data"]
    assert (len(tried["x"]), len(front["x"]), len(best["x"])) == (32, len(summary["front"]), 1)
    assert front["x"] == [pytest.approx(n["metrics"]["macs"] / 1e6) for n in summary["front"]]
    assert front["y"] == [pytest.approx(100 * n["metrics"]["val_accuracy"]) for n in summary["front"]]


# -- runs that have not ended


def test_an_interrupted_run_shows_its_best_so_far(interrupted):
    write_report(RunDir.read(interrupted.path))
    contents = read_contents(interrupted)
    complete = [t for t in trials() if t.state == "complete"]
    assert not contents.finished
    assert contents.best.key == max(complete, key=lambda t: t.scores["val_accuracy"]).architecture.key
    text = Outside((interrupted.path / "report.html").read_text()).text
    assert "This run has not ended" in text and "best so far" not in answer(contents)
    assert answer(contents).endswith("validation: keeps 3MFLOPs")


def test_the_computed_front_is_what_nothing_beats(interrupted):
    contents = read_contents(interrupted)
    points = {t.architecture.key: (t.cost.values()["macs"], t.scores["val_accuracy"]) for t in trials() if t.scores}
    expected = {
        k for k, (m, a) in points.items() if not any(n <= m and b >= a and (n, b) != (m, a) for n, b in points.values())
    }
    assert {n.key for n in contents.front} == expected
    costs = [n.metrics["macs"] for n in contents.front]
    assert costs == sorted(costs)


def test_a_torn_last_line_does_not_matter(interrupted):
    with (interrupted.path / "trials.jsonl").open("a") as file:
        file.write('{"number": 40, "ke')
    with pytest.warns(UserWarning, match="torn line"):
        write_report(RunDir.read(interrupted.path))


def test_files_left_by_an_earlier_attempt_without_a_summary_are_not_believed(interrupted):
    interrupted.write_json("best/verify.json", {"ok": False, "checks": [{"name": "x", "ok": False}], "metrics": {}})
    assert read_contents(interrupted).verify == {}


def test_what_cannot_be_reported_is_one_line(tmp_path):
    with pytest.raises(InvalidSetting, match="no run directory"):
        RunDir.read(tmp_path)
    with RunDir.create("search", config(), out=tmp_path / "new") as run:
        with pytest.raises(InvalidSetting, match="nothing to report: none of its 0 trials was evaluated"):
            write_report(run)
        over = next(t for t in trials() if t.state == "infeasible")
        run.append_trial(over.to_json())
        with pytest.raises(InvalidSetting, match="none of its 1 trials"):
            write_report(run)
        (run.path / "summary.json").write_text("{")
        with pytest.raises(CorruptRun, match="summary.json"):
            write_report(run)


def test_a_run_without_trials_reports_what_its_summary_has(finished, tmp_path):
    _, summary = finished
    with RunDir.create("prune", config(budgets=[]), out=tmp_path / "prune-1") as run:
        run.write_json("summary.json", summary)
        write_report(run)
    assert "Search over time" not in (run.path / "report.html").read_text()


# -- words


def test_metrics_in_words():
    assert show("macs", 2.91e6) == "2.91 MFLOPs" and show("val_accuracy", 0.98333) == "98.3%" and show("params", None) == "–"
    assert name_of("latency_ms@pixel3") == "latency (pixel3)" and name_of("macs") == "multiply-adds"
    assert [duration(s) for s in (8.44, 59.97, 125.2, 11_520)] == ["8.4 s", "1 min 0 s", "2 min 5 s", "3 h 12 min"]


@pytest.mark.parametrize(
    ("metric", "limit", "label", "factor"),
    [
        ("macs", 3e6, "multiply-adds (M)", 1e-6),
        ("macs", 1.2e9, "multiply-adds (G)", 1e-9),
        ("params", 900, "parameters", 1),
        ("size_bytes", 2e6, "stored weights (MB)", 1e-6),
        ("latency_ms@pixel3", 15, "latency (pixel3) (ms)", 1),
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


# -- imports


def test_the_report_needs_no_torch_and_its_start_no_package():
    code = (
        "import sys, nas.report, nas.report.card\n"
        "heavy = {'torch', 'pandas', 'plotly', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import nas.report.write\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
