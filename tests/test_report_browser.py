"""The page in a browser: what one can do with it, and what it must never do."""

import json

import pytest
from browser import axe_source, chromium
from report_run import EVIL, compress, config, finish, layers_json, record_training, start, trials

from nas.report.comparison import comparison_html
from nas.report.contents import metric_names, read_contents
from nas.report.page import report_html
from nas.report.words import show
from nas.rundir import RunDir

WIDTHS = (390, 1024, 1600)
SHIFT = """() => new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => { for (const e of list.getEntries()) sum += e.value; })
    .observe({type: 'layout-shift', buffered: true});
  requestAnimationFrame(() => requestAnimationFrame(() => done(sum)));
})"""
POINT = """i => {
  const trace = document.getElementById('front').data.findIndex(t => t.customdata && t.customdata.includes(i));
  const plot = document.getElementById('front'), at = plot.data[trace].customdata.indexOf(i);
  const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
  const {x, y} = plot.data[trace];
  return {x: box.left + xaxis._offset + xaxis.d2p(x[at]), y: box.top + yaxis._offset + yaxis.d2p(y[at])};
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with start(tmp_path_factory.mktemp("runs") / "search-1") as opened:
        summary = finish(opened)
        opened.write_json("layers.json", layers_json(summary["best"]["key"]))
        record_training(opened)
        (opened.path / "report.html").write_text(report_html(read_contents(opened)))
        yield opened


@pytest.fixture
def opened(browser, run):
    yield from open_page(browser, run.path / "report.html", 1024)


def open_page(browser, path, width, scheme="light"):
    """A page with what it said and what it asked for; both must be nothing in the end."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("#front .main-svg")
    yield page
    page.close()
    assert said == []
    assert asked == [path.as_uri()]


def cells(page) -> list[list[str]]:
    """The text of the comparison, row by row; a difference stands behind its value."""
    rows = page.locator("#comparison tbody tr").all()
    return [[" ".join(cell.inner_text().split()) for cell in row.locator("th, td").all()] for row in rows]


def heads(page) -> list[str]:
    return [code.inner_text() for code in page.locator("#comparison thead code").all()]


# -- the figure


def test_the_axes_are_chosen_among_all_metrics(opened, run):
    contents = read_contents(run)
    options = opened.locator("#axis-x option")
    assert [o.get_attribute("value") for o in options.all()] == metric_names([*contents.front, contents.best])
    before = opened.evaluate("document.getElementById('front').data[1].x")
    assert before == pytest.approx([n.metrics["macs"] / 1e6 for n in contents.front])
    opened.select_option("#axis-x", "params")
    opened.select_option("#axis-y", "macs")
    figure = opened.evaluate("({x: front.data[1].x, y: front.data[1].y, layout: {x: front.layout.xaxis.title.text,"
                             "shapes: front.layout.shapes, mode: front.data[1].mode}})")  # fmt: skip
    assert figure["x"] == pytest.approx([n.metrics["params"] / 1e3 for n in contents.front])
    assert figure["y"] == pytest.approx(before)
    assert figure["layout"]["x"] == "parameters (k)" and figure["layout"]["mode"] == "markers"
    assert [s["y0"] for s in figure["layout"]["shapes"]] == [3]  # the budget is drawn where its metric is


def test_the_mouse_over_a_network_shows_it_and_a_click_compares_it(opened, run):
    third = read_contents(run).front[2]
    opened.locator("#front").scroll_into_view_if_needed()
    place = opened.evaluate(POINT, 3)
    opened.mouse.move(place["x"], place["y"])
    opened.wait_for_selector("#front .hovertext")
    hover = opened.locator("#front .hovertext").text_content()
    assert third.key in hover and all(show(m, value) in hover for m, value in third.metrics.items())
    opened.mouse.click(place["x"], place["y"])
    opened.wait_for_selector(f"#comparison thead code:has-text('{third.key}')")
    assert opened.locator(f"button[aria-label='Compare network {third.key}']").get_attribute("aria-pressed") == "true"


# -- the comparison


def test_two_networks_are_compared_by_keyboard(opened, run):
    contents = read_contents(run)
    first, second = contents.front[0], contents.front[3]
    for network in (first, second):
        opened.locator(f"button[aria-label='Compare network {network.key}']").focus()
        opened.keyboard.press("Enter")
    assert heads(opened) == [contents.best.key, first.key, second.key]
    rows = {row[0]: row[1:] for row in cells(opened)}
    for metric, name in (("macs", "multiply-adds"), ("params", "parameters"), ("val_accuracy", "validation accuracy")):
        base, *others = (n.metrics[metric] for n in (contents.best, first, second))
        share = metric == "val_accuracy"
        differences = [100 * (v - base if share else v / base - 1) for v in others]
        texts = [f"{d:+.1f}".replace("-", "−") + (" points" if share else "%") for d in differences]
        assert rows[name] == [show(metric, base), *(f"{show(metric, v)} {d}" for v, d in zip(others, texts, strict=True))]
    assert rows["latency"] == ["0.41 ms", "–", "–"] and opened.locator("#comparison [aria-label='not known']").count() == 6
    assert rows["s0.width"] == [str(n.choices["s0.width"]) for n in (contents.best, first, second)] and "resolution" not in rows
    assert rows["extract it with"][1] == f"nas extract {run.path} {first.key} Copy"
    opened.click(f"button[aria-label='Remove {first.key} from the comparison']")
    assert heads(opened) == [contents.best.key, second.key]
    assert opened.locator("#said").inner_text() == f"{first.key} was removed from the comparison."
    assert opened.evaluate("document.activeElement.id") == "comparison"


def test_a_network_is_compared_by_its_key_and_an_unknown_key_is_said(opened, run):
    beaten = next(
        t.architecture.key for t in trials() if t.scores and t.architecture.key not in {n.key for n in read_contents(run).front}
    )
    opened.fill("#by-key", beaten)
    opened.press("#by-key", "Enter")
    assert heads(opened)[1:] == [beaten]
    opened.fill("#by-key", EVIL)
    opened.press("#by-key", "Enter")
    assert opened.locator("#said").inner_text() == f"No network {EVIL} is on this page."
    assert heads(opened)[1:] == [beaten]


def test_the_command_is_copied(browser, run):
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto((run.path / "report.html").as_uri())
    key = read_contents(run).best.key
    page.click(f"button[aria-label='Copy the command that extracts {key}']")
    page.wait_for_selector("button:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == f"nas extract {run.path} {key}"
    context.close()


# -- manners


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_jumps_and_nothing_is_wider_than_the_window(browser, run, width):
    for page in open_page(browser, run.path / "report.html", width):
        assert page.evaluate(SHIFT) < 0.02
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_figures_follow_a_dark_page(browser, run):
    colours = {}
    for scheme in ("light", "dark"):
        for page in open_page(browser, run.path / "report.html", 1024, scheme):
            colours[scheme] = page.evaluate("[getComputedStyle(document.body).backgroundColor, front._fullLayout.font.color]")
    assert colours["light"] == ["rgb(255, 255, 255)", "#1c1e21"] and colours["dark"] == ["rgb(20, 23, 26)", "#e6e8ea"]


def violations(page) -> list[str]:
    """Serious and critical findings of axe-core."""
    page.evaluate(axe_source())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0]['failureSummary'][:300]}" for v in serious]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser, run, scheme):
    contents = read_contents(run)
    for page in open_page(browser, run.path / "report.html", 1024, scheme):
        page.click(f"button[aria-label='Compare network {contents.front[1].key}']")
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert violations(page) == []


def test_axe_finds_no_serious_violation_in_a_compressed_run(browser, tmp_path):
    with compress(tmp_path / "compress-1", "compress") as made:
        (made.path / "report.html").write_text(report_html(read_contents(made)))
    for page in open_page(browser, made.path / "report.html", 390):
        assert violations(page) == []


# -- several runs


@pytest.fixture
def compared(run, tmp_path):
    """The run beside another one, on other data, that has not ended."""
    other = {**config()["data"], "name": "letters", "fingerprint": "beef"}
    with start(tmp_path / "search-2", data=other, options={"trials": 80}) as second:
        page = tmp_path / "comparison.html"
        page.write_text(comparison_html([read_contents(run), read_contents(RunDir.read(second.path))]))
        yield page, second


def test_several_runs_are_compared(browser, run, compared):
    path, second = compared
    contents = [read_contents(r) for r in (run, second)]
    for page in open_page(browser, path, 1024):
        assert heads(page) == [c.best.key for c in contents]
        rows = {row[0]: row[1:] for row in cells(page)}
        assert [command.split()[2] for command in rows["extract it with"]] == [c.path for c in contents]
        fronts = page.evaluate("front.data.slice(0, 2).map(t => t.x)")
        assert fronts == [pytest.approx([n.metrics["macs"] / 1e6 for n in c.front]) for c in contents]
        text = page.inner_text("header")
        assert "different data" in text and "search-2: letters, beef" in text and "Not ended" in text
        assert page.locator("#settings ~ .scroll tbody tr").all_inner_texts() == ["trials\t40\t80", f"data\t{EVIL}\t–"]
        assert violations(page) == []


def test_choices_of_different_spaces_are_not_compared(browser, run, tmp_path):
    with compress(tmp_path / "quantize-1") as other:
        page = tmp_path / "comparison.html"
        page.write_text(comparison_html([read_contents(run), read_contents(other)]))
    for opened in open_page(browser, page, 390):
        rows = {row[0]: row[1:] for row in cells(opened)}
        assert "s0.width" not in rows and len(rows["multiply-adds"]) == 2
        assert "The choices of different spaces are not compared." in opened.inner_text("#comparison caption")
        lines = [f"nas extract {one.path} {read_contents(one).best.key} Copy" for one in (run, other)]
        assert rows["extract it with"] == lines


def test_a_run_that_networks_cannot_be_extracted_from_has_no_command(browser, run, tmp_path):
    with compress(tmp_path / "own-1", "own") as other:
        page = tmp_path / "comparison.html"
        page.write_text(comparison_html([read_contents(run), read_contents(other)]))
    for opened in open_page(browser, page, 390):
        (line,) = [row[1:] for row in cells(opened) if row[0] == "extract it with"]
        assert line == [f"nas extract {run.path} {read_contents(run).best.key} Copy", "–"]


def test_a_big_run_reacts_quickly(browser, tmp_path):
    """No times are asserted: that only so many networks are drawn is what keeps it quick."""
    with start(tmp_path / "run") as run, (run.path / "trials.jsonl").open("a") as file:
        file.writelines(json.dumps(trial.to_json()) + "\n" for trial in trials(2600)[40:])
        file.flush()
        contents = read_contents(run)
        (run.path / "report.html").write_text(report_html(contents))
    evaluated = len(contents.evaluated)
    assert evaluated > 1000 and (run.path / "report.html").stat().st_size < 6_000_000
    for page in open_page(browser, run.path / "report.html", 1024):
        drawn = page.evaluate("front.data.slice(0, 2).map(t => t.x.length)")
        assert drawn == [1000, len(contents.front)]
        left_out = evaluated - 1000 - len(contents.front)
        assert f"1000 of the networks that are beaten, evenly selected, and leaves out {left_out}." in page.inner_text("main")
        assert json.loads(page.inner_text("#explorer-data"))["x"] == "macs"
