"""How long a report of many trials takes to be written, and to open and react in a headless Chromium.

python -m benchmarks.report_opening [--trials 5000] [--openings 5]

The run is made up: random architectures of `mobilenet`, counted, with accuracies that grow with the cost, and with luck. Times
are medians with the least and the most, from the start of the navigation, of reactions from the click; the file is opened anew
in a new context each time.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.side_by_side import NAS
from nas.cost.counting import count
from nas.cost.measure import load as machine_load
from nas.rundir import RunDir
from nas.seeding import numpy_rng
from nas.trial import Trial
from search_spaces import SPACES
from search_spaces.staged import DataShape

LIMIT = 600e6
DATA = {
    "name": "imagefolder:photos", "fingerprint": "made-up", "classes": 1000, "class_names": [], "channels": 3,
    "resolution": 224, "mean": [0.5] * 3, "std": [0.25] * 3, "train": 90_000, "val": 10_000,
}  # fmt: skip
CONFIG = {
    "command": "search", "argv": "nas search --budget 600MFLOPs", "options": {}, "seed": 0, "versions": {}, "data": DATA,
    "device": {"type": "cpu", "name": "made up"}, "budgets": [{"text": "600MFLOPs", "metric": "macs", "limit": LIMIT}],
    "objectives": ["macs"], "space": {"name": "mobilenet", "version": 1, "settings": {}},
}  # fmt: skip
# milliseconds since the navigation began, once what is waited for is there
SINCE_START = "() => performance.now()"
FIRST_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
FIGURES = "() => document.querySelectorAll('.main-svg').length >= 2 * document.querySelectorAll('script[data-figure]').length"
AXIS = """() => new Promise(done => {
  const start = performance.now(), axis = document.getElementById('axis-x');
  axis.value = [...axis.options].find(o => o.value !== axis.value).value;
  axis.dispatchEvent(new Event('change'));
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""
PIN = """() => new Promise(done => {
  const start = performance.now();
  document.querySelector('button[data-network][aria-pressed=false]').click();
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""


def trials(number: int) -> Iterator[Trial]:
    """Random architectures with made-up accuracies; those over the budget have none."""
    family, rng = SPACES["mobilenet"], numpy_rng(0, "report_opening")
    space = family.make(DataShape(3, 224, 1000), family.macros[0], 1.0, family.options())
    for i in range(number):
        arch = space.sample(rng)
        cost = count(space.plan(arch))
        macs = cost.metrics["macs"].value
        accuracy = min(0.8, 0.4 + 0.06 * math.log(macs / 1e7) + float(rng.normal(0, 0.01)))
        scores = {"val_accuracy": accuracy} if macs <= LIMIT else {}
        yield Trial(i, arch, "complete" if scores else "infeasible", cost, scores, 0.5)


def written(folder: Path, number: int) -> float:
    """Make the run, and let `nas report` write its page; gives the seconds of that process."""
    with RunDir.create("search", CONFIG, out=folder) as run, (run.path / "trials.jsonl").open("a") as file:
        file.writelines(json.dumps(trial.to_json()) + "\n" for trial in trials(number))
    start = time.monotonic()
    subprocess.run([*NAS, "report", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def opened(browser: Browser, page_file: Path) -> dict[str, float]:
    """Open the page once: milliseconds until it is there, and until it reacted."""
    context = browser.new_context(viewport={"width": 1024, "height": 900})
    page = context.new_page()
    page.goto(page_file.as_uri(), wait_until="commit")
    page.wait_for_selector("#front .main-svg")
    times = {"text": page.evaluate(FIRST_PAINT), "Pareto front": page.evaluate(SINCE_START)}
    page.wait_for_function(FIGURES)
    times["last figure"] = page.evaluate(SINCE_START)
    times |= {"another axis": page.evaluate(AXIS), "one more network compared": page.evaluate(PIN)}
    context.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--openings", type=int, default=5)
    args = parser.parse_args()
    path = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit("needs chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as base, sync_playwright() as playwright:
        folder = Path(base) / "run"
        seconds = written(folder, args.trials)
        size = (folder / "report.html").stat().st_size
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        times = [opened(browser, folder / "report.html") for _ in range(args.openings)]
        browser.close()
    print(f"{args.trials} trials: nas report took {seconds:.1f} s, the page has {size / 1e6:.2f} MB")
    rows = {}
    for name in times[0]:
        values = [one[name] for one in times]
        rows[name] = {"ms": statistics.median(values), "least": min(values), "most": max(values)}
        print(f"{name:28} {rows[name]['ms']:7.0f} ms ({rows[name]['least']:.0f} to {rows[name]['most']:.0f})")
    settings = {"trials": args.trials, "openings": args.openings, "write_s": seconds, "bytes": size}
    print(json.dumps({"benchmark": "report_opening", **settings, "load": machine_load(), "rows": rows}))


if __name__ == "__main__":
    main()
