"""Write the report files of a run directory."""

from __future__ import annotations

from pathlib import Path

from nas.report.contents import read_contents
from nas.report.front import front_csv
from nas.report.page import report_html
from nas.report.plots import front_png
from nas.rundir import RunDir

FRONT_TABLE, FRONT_PICTURE, PAGE = "front.csv", "front.png", "report.html"


def write_report(run: RunDir) -> list[Path]:
    """Write front.csv, front.png and report.html, whether the run has ended or not; the run need not be locked.

    Raises InvalidSetting if no network of the run was evaluated, CorruptRun if its files cannot be read.
    """
    contents = read_contents(run)
    run.write_text(FRONT_TABLE, front_csv(contents.front))
    run.write_bytes(FRONT_PICTURE, front_png(contents))
    run.write_text(PAGE, report_html(contents))
    return [run.path / name for name in (FRONT_TABLE, FRONT_PICTURE, PAGE)]
