"""Write the report files of a run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.files import utf8
from nas.report.contents import Contents, read_contents
from nas.report.digest import report_markdown
from nas.report.front import front_csv, front_parquet
from nas.report.latency import by_attempt
from nas.report.page import report_html
from nas.report.picture import PICTURE, front_picture
from nas.report.plots import front_pictures, latency_png
from nas.report.portable import without_paths
from nas.rundir import RunDir

LATENCY_PICTURE, PAGE, DIGEST = "latency.png", "report.html", "report.md"


def write_report(run: RunDir, summary: Mapping[str, Any] | None = None) -> list[Path]:
    """Write the tables, pictures and pages of a run, whether it has ended or not; the run need not be locked.

    Always front.csv, front.parquet, front.png, front.svg, report.html and report.md; latency.png where networks were timed
    whose latency had been predicted; best/front.svg, which the model card shows, once the run has ended.

    `summary` is what summary.json will have, of a run that writes it when its report is there.

    Raises InvalidSetting if no network of the run was evaluated, CorruptRun if its files cannot be read.
    """
    files = report_files(read_contents(run, summary))
    for name, data in files.items():
        run.write_bytes(name, data)
    return [run.path / name for name in files]


def report_files(contents: Contents) -> dict[str, bytes]:
    """The content of each file, by its name."""
    files = {"front.csv": utf8(front_csv(contents.front)), "front.parquet": front_parquet(contents.front)}
    files |= {f"front.{kind}": data for kind, data in front_pictures(contents).items()}
    if by_attempt(contents.timings):
        files[LATENCY_PICTURE] = latency_png(contents)
    told, folder = [contents.config, contents.summary.get("original")], Path(contents.path)
    files[PAGE] = utf8(without_paths(report_html(contents), told, folder))
    files[DIGEST] = utf8(without_paths(report_markdown(contents), told, folder))
    if contents.finished and (picture := front_picture(contents.summary)):
        files[f"best/{PICTURE}"] = utf8(picture)
    return files
