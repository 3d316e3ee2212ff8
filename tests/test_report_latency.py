import csv
import io
import json
import re
import struct
from dataclasses import asdict, replace

import pytest
from report_run import EVIL, config, finish, start, trials, verify_json
from test_report import FILES, Outside

from nas.budget import Cost, Metric
from nas.latency.table import LatencyTable, table_text
from nas.latency.target import Target
from nas.report.card import model_card
from nas.report.contents import read_contents
from nas.report.explorer import explore, explorer_json
from nas.report.figures import latency_figure
from nas.report.latency import LOG, Agreement, Timed, agreement, read_timings
from nas.report.page import report_html
from nas.report.words import answer, latency_sentence, name_of, provenance, show
from nas.report.write import write_report
from nas.rundir import RunDir

TARGET = Target("Abacus 9000", "onnxruntime", "1.31.1")
MS = {"text": "0.25ms", "metric": "latency_ms", "limit": 0.25}
# predicted and measured ms; relative errors 0, +25%, -20%
PAIRS = ((0.1, 0.1), (0.25, 0.2), (0.24, 0.3))


def pairs(*values: tuple[float | None, float]) -> list[Timed]:
    return [Timed(0, f"k{i}", predicted, measured) for i, (predicted, measured) in enumerate(values)]


def line(number: int, predicted: float | None, measured: float, **changes) -> dict:
    arch = trials()[number].architecture
    return {
        "attempt": 0, "trials": 40, "key": arch.key, "architecture": arch.to_json(), "predicted_ms": predicted,
        "measured_ms": measured, "spread_ms": 0.02, "context": f"{TARGET}; median of 15 rounds; machine quiet, load 0",
        **changes,
    }  # fmt: skip


def timed_run(path, lines, **changes):
    """A run whose trials have latencies by tables: 0.1 ms a million multiply-adds here, 5 ms on pixel3."""
    settings = {"target": asdict(TARGET), "budgets": [MS], "objectives": ["latency_ms"], **changes}
    run = RunDir.create("search", config(**settings), out=path)
    for trial in trials():
        macs = trial.cost.values()["macs"]
        found = {name: Metric(macs * ms, "ms", "table") for name, ms in (("latency_ms", 1e-7), ("latency_ms@pixel3", 5e-6))}
        run.append_trial(replace(trial, cost=Cost({**trial.cost.metrics, **found})).to_json())
    for row in lines:
        run.append_line(LOG, row)
    return run


@pytest.fixture
def run(tmp_path):
    with timed_run(tmp_path / "search-1", [line(i, *pair) for i, pair in enumerate(PAIRS)]) as opened:
        yield opened


def text_of(run) -> str:
    return " ".join(Outside(report_html(read_contents(run))).text.split())


def rows_of(run) -> list[list[str]]:
    """The text of each table row of the page."""
    found = re.findall("<tr[^>]*>(.*?)</tr>", report_html(read_contents(run)))
    return [[Outside(cell).text for cell in re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in found]


# -- agreement


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # one of six pairs is in the wrong order; rank differences 0, 0, 1, 1
        ([(1, 1), (2, 2), (3, 4), (4, 3)], (4, (1 / 4 + 1 / 3) / 4, (-1 / 4 + 1 / 3) / 4, 4 / 6, 1 - 6 * 2 / (4 * 15))),
        # a tie: tau-b is 5 / sqrt(5 * 6), and the tied ranks are 1.5
        (
            [(1, 1), (1, 2), (2, 3), (3, 4)],
            (4, (1 / 2 + 1 / 3 + 1 / 4) / 4, -(1 / 2 + 1 / 3 + 1 / 4) / 4, 5 / 30**0.5, 0.9**0.5),
        ),
        ([(3, 1), (2, 2), (1, 3)], (3, (2 + 2 / 3) / 3, (2 - 2 / 3) / 3, -1, -1)),
        ([(0.3, 0.3), (0.1, 0.1), (0.2, 0.2)], (3, 0, 0, 1, 1)),
    ],
)
def test_agreement_by_hand(values, expected):
    found = agreement(pairs(*values))
    assert tuple(asdict(found).values()) == pytest.approx(expected)


def test_two_networks_have_errors_but_no_ranks():
    found = agreement(pairs((1.1, 1), (1.8, 2)))
    assert found == Agreement(2, pytest.approx(0.1), pytest.approx(0.0), None, None)
    assert found.to_json() == {"networks": 2, "mean_absolute_error": pytest.approx(0.1), "bias": pytest.approx(0.0)}


@pytest.mark.parametrize("values", [[(1, 1), (1, 2), (1, 3)], [(1, 2), (2, 2), (3, 2)]])
def test_equal_values_have_no_ranks(values):
    assert set(agreement(pairs(*values)).to_json()) == {"networks", "mean_absolute_error", "bias"}


def test_networks_without_a_prediction_do_not_count():
    with_gap = agreement(pairs((1, 1), (None, 7), (2, 2), (3, 4), (4, 3)))
    assert with_gap == agreement(pairs((1, 1), (2, 2), (3, 4), (4, 3)))
    assert agreement(pairs((None, 1))) == agreement([]) == Agreement(0) and Agreement(0).to_json() == {"networks": 0}


def test_the_log_is_read_in_order(run, tmp_path):
    first, *_ = timings = read_timings(run)
    assert [(t.predicted_ms, t.measured_ms) for t in timings] == list(PAIRS)
    assert first == Timed(0, trials()[0].architecture.key, 0.1, 0.1, 0.02, line(0, 0.1, 0.1)["context"])
    with start(tmp_path / "other") as other:
        assert read_timings(other) == ()


# -- page and picture


def test_page_tells_how_far_predictions_were_off(run):
    text = text_of(run)
    assert (
        f"3 networks were exported and timed on {TARGET}: predictions were 15.0% off on average (bias +1.7%), "
        "Kendall tau 0.33, Spearman 0.50."
    ) in text
    context = line(0, 0.1, 0.1)["context"]
    rows = [["0.1 ms", "0.1 ms", "+0.0%"], ["0.25 ms", "0.2 ms", "+25.0%"], ["0.24 ms", "0.3 ms", "-20.0%"]]
    expected = [
        [trial.architecture.key, predicted, measured, "0.02 ms", error, f"machine quiet{context}"]
        for trial, (predicted, measured, error) in zip(trials(), rows, strict=False)
    ]
    table = rows_of(run)
    first = table.index(["network", "predicted", "measured", "spread", "error", "timing"])
    assert table[first + 1 : first + 4] == expected


def test_figure_has_the_numbers_the_diagonal_and_the_budget(run):
    figure = json.loads(latency_figure(read_contents(run)))
    diagonal, points = figure["data"]
    assert diagonal["x"] == diagonal["y"] == figure["layout"]["xaxis"]["range"] == figure["layout"]["yaxis"]["range"]
    assert (points["x"], points["y"]) == ([p for p, _ in PAIRS], [m for _, m in PAIRS])
    assert points["error_y"]["array"] == [0.01] * 3
    assert all(f"<b>{t.architecture.key}</b>" in text for t, text in zip(trials(), points["text"], strict=False))
    assert [s["y0"] for s in figure["layout"]["shapes"]] == [0.25]
    # room for the lower end of the shortest bar and the upper end of the longest
    low, high = diagonal["x"]
    assert low < 0.09 and high > 0.31


def test_each_predictor_has_its_trace(tmp_path):
    lines = [line(0, 0.1, 0.1), line(1, 0.2, 0.2, attempt=1, spread_ms=None), line(2, None, 0.3, attempt=1)]
    with timed_run(tmp_path / "run", lines) as run:
        _, first, second = json.loads(latency_figure(read_contents(run)))["data"]
        text, table = text_of(run), rows_of(run)
    assert (first["name"], second["name"]) == ("before any refit (1)", "after 1 refit (1)")
    assert first["meta"] != second["meta"] and first["marker"]["symbol"] != second["marker"]["symbol"]
    assert second["error_y"]["array"] == [0.0]
    assert "3 networks were exported" in text and "predictions, known of 2, were 0.0% off on average (bias +0.0%)." in text
    assert ["after 1 refit", "–", "0.3 ms", "0.02 ms", "–"] in [row[1:6] for row in table]


def test_picture_is_written_beside_the_page(run):
    names = ["front.csv", "front.parquet", "front.png", "front.svg", "latency.png", "report.html", "report.md"]
    first = [p.read_bytes() for p in write_report(run)]
    assert [p.name for p in write_report(run)] == names and [(run.path / n).read_bytes() for n in names] == first
    picture = first[names.index("latency.png")]
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    width, height = struct.unpack(">II", picture[16:24])
    assert width == height > 600


def test_timings_that_nothing_predicted_are_a_table_only(tmp_path):
    with timed_run(tmp_path / "run", [line(0, None, 0.1)]) as run:
        assert [p.name for p in write_report(run)] == FILES
        assert latency_sentence(read_contents(run)).endswith("cores: the latency table predicted none of them.")
        page = (run.path / "report.html").read_text()
    assert 'id="figure-latency"' not in page and "1 network was exported and timed" in page


def test_a_run_that_timed_nothing_has_no_section(tmp_path):
    with start(tmp_path / "run") as run:
        write_report(run)
        assert "measured latency" not in text_of(run) and not (run.path / "latency.png").exists()


def test_text_from_outside_is_escaped(tmp_path):
    lines = [line(i, 0.1, 0.1, key=f"{EVIL}{i}", context=EVIL) for i in range(3)]
    options = {"accept_foreign_table": True, "table": EVIL}
    target = {**asdict(TARGET), "device": EVIL}
    with timed_run(
        tmp_path / "run",
        lines,
        target=target,
        options=options,
        objectives=["latency_ms", "macs"],
        budgets=[{**MS, "text": EVIL}],
    ) as run:
        page = report_html(read_contents(run))
    assert "<img" not in page.replace("<img>", "")
    seen = Outside(page)
    assert "img" not in seen.tags and seen.tags.count("script") == 8
    assert f"timed on {EVIL}, onnxruntime" in seen.text


# -- what was measured goes before what was predicted


def test_an_interrupted_run_goes_by_the_clock(tmp_path):
    with timed_run(tmp_path / "run", []) as run:
        before = read_contents(run)
        assert before.best.metrics["latency_ms"] <= 0.25 and answer(before).endswith("keeps 0.25ms")
        assert provenance("latency_ms", before.taken.get("latency_ms")) == "predicted by the latency table"
        run.append_line(LOG, line(0, 0.2, 0.26, key=before.best.key))
        second = read_contents(run).best
        assert second.key != before.best.key and second.metrics["latency_ms"] <= 0.25
        run.append_line(LOG, line(0, 0.2, 0.21, key=second.key))
        after = read_contents(run)
    assert after.best.key == second.key and after.best.metrics["latency_ms"] == 0.21
    assert {t.network.key: t.network.metrics["latency_ms"] for t in after.trials}[before.best.key] == 0.26
    assert provenance("latency_ms", after.taken["latency_ms"]).startswith("measured, interquartile range 0.02 ms, Abacus 9000")


def test_the_figure_shows_networks_of_the_front_where_the_front_has_them(run):
    summary = finish(run)
    moved = {**summary["front"][0], "metrics": {**summary["front"][0]["metrics"], "macs": 123_456}}
    run.write_json("summary.json", {**summary, "front": [moved, *summary["front"][1:]]})
    data = json.loads(explorer_json(explore(read_contents(run))))
    assert data["networks"]["values"]["macs"][1] == 123_456 and data["networks"]["key"].count(moved["key"]) == 1


# -- tables of other targets


NOTICE = "guided by the latency table of another target (--accept-foreign-table): tables/phone.csv."
ACCEPTED = {"accept_foreign_table": True, "table": "tables/phone.csv"}


@pytest.mark.parametrize(
    ("options", "objectives", "used", "noticed"),
    [
        (ACCEPTED, ["latency_ms"], None, True),
        (ACCEPTED, ["latency_ms"], Target("phone", "tflite", "2"), True),
        (ACCEPTED, ["latency_ms"], TARGET, False),  # the flag was not needed
        (ACCEPTED, ["macs"], None, False),  # the table was not needed
        ({**ACCEPTED, "table": None}, ["latency_ms"], None, False),
        ({**ACCEPTED, "accept_foreign_table": False}, ["latency_ms"], None, False),
    ],
)
def test_a_table_of_another_target_is_told(tmp_path, options, objectives, used, noticed):
    budgets = [{**MS, "metric": objectives[0]}]
    with timed_run(tmp_path / "run", [], options=options, objectives=objectives, budgets=budgets) as run:
        if used is not None:
            run.write_text("latency.csv", table_text(LatencyTable(used)))
        assert (NOTICE in text_of(run)) == noticed


def test_metrics_of_named_targets(tmp_path):
    ms, mj = "latency_ms@pixel3", "energy_mj@pixel3"
    assert [name_of(m) for m in (ms, mj)] == ["latency on pixel3", "energy on pixel3"]
    assert [show(m, 14.234) for m in (ms, mj)] == ["14.2 ms", "14.2 mJ"]
    assert provenance(ms, None) == "predicted by the latency table of pixel3"
    budget = {"text": "15ms@pixel3", "metric": ms, "limit": 15.0}
    with timed_run(tmp_path / "run", [], objectives=[ms], budgets=[budget]) as run:
        summary = finish(run)
        for network in (summary["best"], *summary["front"]):
            network["metrics"] |= {ms: network["metrics"]["macs"] / 2e5, mj: 3.0, "latency_ms": 0.4}
        best = summary["best"]["metrics"]
        summary["budget"] = [{**budget, "value": best[ms], "ok": True}]
        run.write_json("summary.json", summary)
        write_report(run)
        contents, head = read_contents(run), next(csv.reader(io.StringIO((run.path / "front.csv").read_text())))
        figure, table = json.loads(explorer_json(explore(contents))), rows_of(run)
    assert head == ["key", "macs", "params", "latency_ms", ms, mj, "val_accuracy", "choices"]
    assert answer(contents).startswith(f"{show(ms, best[ms])} latency on pixel3, ")
    assert answer(contents).endswith("keeps 15ms@pixel3")
    assert next(m for m in figure["metrics"] if m["id"] == figure["x"])["label"] == "latency on pixel3 (ms)"
    assert [figure["networks"]["values"][ms][i] for i in figure["traces"][1]["members"]] == [
        n["metrics"][ms] for n in summary["front"]
    ]
    assert ["15ms@pixel3", "latency on pixel3", "15 ms", show(ms, best[ms]), "✓ kept"] in table
    card = model_card(summary, config(), verify_json(summary["best"]))
    assert "| 15ms@pixel3 | latency on pixel3 | 15 ms |" in card
    assert f"| latency on pixel3 | {show(ms, best[ms])} | predicted by the latency table of pixel3 |" in card
