import csv
import io
import json
import struct
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from report_run import EVIL, config, finish, start, trials, verify_json

from nas.errors import CorruptRun, InvalidSetting
from nas.report.contents import read_contents
from nas.report.explorer import explore, explorer_json
from nas.report.page import report_html
from nas.report.plots import DPI, PANEL_INCHES
from nas.report.words import answer, show
from nas.report.write import write_report
from nas.rundir import RunDir

FILES = ["front.csv", "front.parquet", "front.png", "front.svg", "report.html", "report.md"]
PNG_SIZE = tuple(round(inches * DPI) for inches in PANEL_INCHES)


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
    assert [str(p.relative_to(run.path)) for p in written] == [*FILES, "best/front.svg"]
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
    explorer = json.loads(explorer_json(explore(read_contents(run))))
    assert explorer["x"] == "macs" and [(t["metric"], t["value"]) for t in explorer["limits"]] == [
        ("macs", 3e6),
        ("params", 9e4),
    ]
    assert not any(trace["stairs"] for trace in explorer["traces"])  # a front of three objectives is a surface


# -- the page


def test_page_loads_nothing_and_is_small_enough(finished):
    run, _ = finished
    write_report(run)
    page = (run.path / "report.html").read_text()
    seen = Outside(page)
    assert all(link.startswith("#") for link in seen.loads)
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
    # data of three figures, plotly, and three scripts
    assert "img" not in seen.tags and seen.tags.count("script") == 7
    assert EVIL in seen.text
    digest = (run.path / "report.md").read_text()
    assert "<img" not in "".join(digest.split("```")[::2])


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


def test_figure_holds_every_network_once_and_the_best_as_it_is_delivered(finished):
    run, summary = finished
    data = json.loads(explorer_json(explore(read_contents(run))))
    tried, front, best = ([data["networks"]["key"][i] for i in trace["members"]] for trace in data["traces"])
    assert front == [n["key"] for n in summary["front"]] and best == [summary["best"]["key"]]
    evaluated = {t.architecture.key for t in trials() if t.scores}
    assert set(tried) == evaluated - set(front) and len(tried) + len(front) == len(evaluated)
    values, best = data["networks"]["values"], summary["best"]["metrics"]
    assert {name: column[0] for name, column in values.items()} == best
    assert values["val_accuracy"][1 : 1 + len(front)] == [n["metrics"]["val_accuracy"] for n in summary["front"]]
    scale = {m["id"]: (m["label"], m["factor"]) for m in data["metrics"]}
    assert scale["macs"] == ("multiply-adds (M)", 1e-6) and scale["val_accuracy"] == ("validation accuracy (%)", 100)
    width, i = data["choices"], 1
    assert (
        width["options"]["s0.width"][width["at"]["s0.width"][i]] == summary["front"][0]["architecture"]["choices"]["s0.width"]
    )
    assert data["runs"] == [{"name": "search-1", "extract": f"nas extract {run.path}", "space": "mobilenet 1"}]


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


# -- imports


def test_the_report_needs_no_torch_and_its_start_no_package():
    code = (
        "import sys, nas.report, nas.report.card\n"
        "heavy = {'torch', 'pandas', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import nas.report.write\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
