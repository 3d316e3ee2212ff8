"""Sections of the page for every kind of run, and what is written beside the page."""

import csv
import io
import json
import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from report_run import EVIL, compress, config, finish, layers_json, record_training, start, verify_json
from test_report import Outside

from nas.report.card import model_card
from nas.report.comparison import comparison_html, notices, settings_that_differ
from nas.report.contents import read_contents
from nas.report.page import report_html
from nas.report.picture import front_picture
from nas.report.words import answer, show
from nas.report.write import write_report


@pytest.fixture
def run(tmp_path):
    with start(tmp_path / "search-1") as opened:
        finish(opened)
        yield opened


def text_of(page: str) -> str:
    return " ".join(Outside(page).text.split())


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """The rows of each table, its head among them, by caption."""
    found = {}
    for table in re.findall("<table>(.*?)</table>", page):
        caption = re.search("<caption[^>]*>(.*?)</caption>", table)[1]
        rows = re.findall("<tr[^>]*>(.*?)</tr>", table)
        found[caption] = [[Outside(cell).text for cell in re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]
    return found


def sections_of(page: str) -> list[str]:
    return re.findall('<h2 id="([^"]*)">', page)


# -- kinds of runs


def test_a_quantized_network_has_its_bits_precisions_and_costly_layers(tmp_path):
    with compress(tmp_path / "quantize-1") as run:
        page = report_html(read_contents(run))
    tables = tables_of(page)
    assert tables["The original and the quantized network"][0] == ["metric", "original", "quantized", "change"]
    assert ["test accuracy", "93.0%", "90.0%", "-3.0 points"] in tables["The original and the quantized network"]
    assert tables["Precisions"][1:] == [
        ["fp32", "1.5 ms ± 0.1 ms", "93.0%", "80 kB", "timed", ""],
        ["int4", "–", "90.0%", "10 kB", "simulated", EVIL],
    ]
    assert tables["Costly layers"][1:] == [[EVIL, "75%", "few bits"]]
    assert tables["Layers"][1:] == [
        ["stem", "8 bits", "8 bits", "144 params", "9.216 kFLOPs", "0.25"],
        [EVIL, "4 bits", "8 bits", "2.304 kparams", "147.5 kFLOPs", "–"],
    ]
    figure = json.loads(re.search('data-figure="figure-sensitivity">(.*?)</script>', page)[1])
    assert [(t["name"], t["x"], t["y"]) for t in figure["data"]] == [("8 bits", ["stem"], [0.25])]
    assert "passes" not in sections_of(page) and "search" not in sections_of(page) and "kept" not in sections_of(page)
    assert "img" not in Outside(page).tags


def test_a_compressed_network_has_its_passes(tmp_path):
    with compress(tmp_path / "compress-1", "compress") as run:
        write_report(run)
        page = (run.path / "report.html").read_text()
    first, second = tables_of(page)["Passes"][1:]
    assert first[0] == "prune" and first[-2:] == ["1 min 1 s", "✓ done"]
    assert second == ["quantize", "5 FLOPs", "–", "–", "2.5 s", "✗ failed"]
    assert {"original", "passes", "quantization"} <= set(sections_of(page))


def test_a_search_without_records_of_layers_and_trainings_leaves_them_out(run):
    page = report_html(read_contents(run))
    assert sections_of(page) == ["budget", "best", "pareto", "search", "common", "verification", "made"]
    links = re.findall('<li><a href="#([^"]*)">', page)
    assert links == sections_of(page)


def test_layers_and_trainings_are_shown_where_they_are_recorded(run):
    best = read_contents(run).best
    run.write_json("layers.json", layers_json(best.key))
    record_training(run, EVIL)
    page = report_html(read_contents(run))
    drawings = re.findall('<svg class="drawing".*?</svg>', page)
    chosen, reference = map(ElementTree.fromstring, drawings)
    kinds = [[part.get("class") for part in drawing.iter() if part.get("class")] for drawing in (chosen, reference)]
    assert [k.count("block") for k in kinds] == [3, 4] and [k.count("gone") for k in kinds] == [1, 0]
    assert [k.count("skip") for k in kinds] == [0, 1]
    assert chosen.get("aria-label") == "stem 8 ch, k3; s.0 8 ch, k3 s2; fc 8 ch, linear"
    tables = tables_of(page)
    assert tables["Layers"][2] == [
        "s.0.a", "conv 3x3/2 relu", "8x4x4", "8x4x4", "100 FLOPs", "33.3%", "100 FLOPs", "10 params", "10 params",
    ]  # fmt: skip
    assert tables["Trainings"][1:] == [[EVIL, "1", "2.5", "0.5", "100%"]]
    costs = json.loads(re.search('data-figure="figure-costs">(.*?)</script>', page)[1])["data"]
    assert [(t["name"], t["y"]) for t in costs] == [("this network", [100, 100, 0, 100]), ("original", [100, 100, 100, 100])]
    assert "img" not in Outside(page).tags


def test_what_is_not_known_is_read_as_such(run):
    page = report_html(read_contents(run))
    assert page.count('<span role="img" aria-label="not known">–</span>') == page.count(">–<") > 0


# -- beside the page


def test_parquet_and_csv_have_the_same_numbers(run):
    write_report(run)
    frame = pd.read_parquet(run.path / "front.parquet")
    rows = list(csv.DictReader(io.StringIO((run.path / "front.csv").read_text())))
    assert list(frame.columns) == list(rows[0])
    assert str(frame["macs"].dtype) == "Int64" and str(frame["val_accuracy"].dtype) == "Float64"
    for name in ("key", "choices"):
        assert list(frame[name]) == [row[name] for row in rows]
    for name in ("macs", "params", "val_accuracy"):
        assert list(frame[name]) == [json.loads(row[name]) for row in rows]


def test_the_markdown_report_has_the_answer_and_the_front(run):
    write_report(run)
    contents, text = read_contents(run), (run.path / "report.md").read_text()
    assert text.startswith(f"# search-1\n\n**{answer(contents)}**\n")
    assert "| 3MFLOPs | multiply-adds | 3 MFLOPs |" in text and "![validation accuracy against cost](front.svg)" in text
    best = contents.best
    for network in contents.front:
        star = " ★" if network.key == best.key else ""
        assert f"| {network.key}{star} | {show('macs', network.metrics['macs'])} |" in text
    assert "- data fingerprint: f00d" in text and "nas search --budget 3MFLOPs" in text


def test_pictures_are_drawings(run):
    write_report(run)
    for name in ("front.svg", "best/front.svg"):
        assert ElementTree.fromstring((run.path / name).read_text()).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_picture_of_a_card_shows_the_place_on_the_front(run):
    summary = run.read_json("summary.json")
    picture = ElementTree.fromstring(front_picture(summary))
    space = "{http://www.w3.org/2000/svg}"
    dots = picture.findall(f"{space}circle")
    assert len(dots) == len(summary["front"]) and len(picture.findall(f"{space}polygon")) == 1
    lines = [path.get("stroke-width") for path in picture.findall(f"{space}path")]
    two = {**summary, "budget": [*summary["budget"], {**summary["budget"][0], "metric": "params"}]}
    assert "1.6" in lines and 'stroke-width="1.6"' not in front_picture(two)
    costs = [float(dot.get("cx")) for dot in dots]
    assert costs == sorted(costs)  # the front is cheapest first
    heights = [float(dot.get("cy")) for dot in dots]
    assert heights == sorted(heights, reverse=True)
    texts = [text.text for text in picture.iter(f"{space}text")]
    assert "3MFLOPs" in texts and "multiply-adds (M)" in texts and "validation accuracy (%)" in texts
    assert "![place of the network on the front](front.svg)" in model_card(summary, config(), verify_json(summary["best"]))


def test_a_card_without_a_front_refers_to_no_picture(run):
    summary = run.read_json("summary.json")
    for front in ([], summary["front"][:1]):
        lonely = {**summary, "front": front}
        assert front_picture(lonely) == "" and "front.svg" not in model_card(lonely, config(), {})


# -- several runs


def test_a_comparison_says_what_differs(run, tmp_path):
    with start(tmp_path / "search-2", options={"trials": 80, "epochs": 3}) as second:
        runs = [read_contents(run), read_contents(second)]
    assert settings_that_differ(runs) == {"trials": [40, 80], "data": [EVIL, None], "epochs": [None, 3]}
    assert notices(runs) == [
        "Not ended, so shown with the best network so far, which is not verified: search-2.",
    ]
    page = comparison_html(runs)
    results = tables_of(page)["Results of the runs"]
    assert results[0] == ["best network", "search-1", "search-2"]
    assert ["test accuracy", "98.3%", "–"] in results and ["trials", "40", "40"] in results
    assert len(page.encode()) < 6_000_000 and "img" not in Outside(page).tags
    assert answer(runs[0]) in text_of(page)
