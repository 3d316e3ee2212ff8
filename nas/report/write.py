"""Write the report files of a run directory."""

from __future__ import annotations

from pathlib import Path

from nas.report.contents import read_contents
from nas.report.front import front_csv
from nas.report.latency import by_attempt
from nas.report.page import report_html
from nas.report.plots import front_png, latency_png
from nas.rundir import RunDir

FRONT_TABLE, FRONT_PICTURE, LATENCY_PICTURE, PAGE = "front.csv", "front.png", "latency.png", "report.html"


def write_report(run: RunDir) -> list[Path]:
    """Write front.csv, front.png and report.html, whether the run has ended or not; the run need not be locked.

    A run that timed networks whose latency it had predicted gets latency.png too.

    Raises InvalidSetting if no network of the run was evaluated, CorruptRun if its files cannot be read.
    """
    contents = read_contents(run)
    files = {FRONT_TABLE: front_csv(contents.front).encode(), FRONT_PICTURE: front_png(contents)}
    if by_attempt(contents.timings):
        files[LATENCY_PICTURE] = latency_png(contents)
    files[PAGE] = report_html(contents).encode()
    for name, data in files.items():
        run.write_bytes(name, data)
    return [run.path / name for name in files]
