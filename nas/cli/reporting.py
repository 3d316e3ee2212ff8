"""The work of `nas report`."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from nas import files
from nas.cli.progress import log
from nas.errors import InvalidSetting
from nas.report.comparison import comparison_html, notices
from nas.report.contents import Contents, read_contents
from nas.report.write import PAGE, write_report
from nas.rundir import RUNS, RunDir

COMPARISON = "comparison.html"


def run_report(runs: Sequence[Path], out: Path | None, show: bool, as_json: bool) -> None:
    """The whole of `nas report`. Raises InvalidSetting for a folder that is no run, or has nothing to report, CorruptRun."""
    paths = list(dict.fromkeys(runs))
    if len(paths) == 1:
        if out is not None:
            raise InvalidSetting(
                f"--out {str(out)!r} is for the comparison of several runs; a single one has its report inside"
            )
        written = _report(paths[0])
        page = paths[0] / PAGE
    else:
        page = out or (RUNS if RUNS.is_dir() else Path()) / COMPARISON
        written = [_compared(paths, page)]
    for file in written:
        log(f"wrote {file}")
    if show:
        webbrowser.open(page.resolve().as_uri())
    if as_json:
        print(json.dumps({"command": "report", "files": [str(f) for f in written]}))


def _report(path: Path) -> list[Path]:
    run = RunDir.read(path)
    contents = read_contents(run)
    if contents.layers is None and _tells_its_space(contents):
        from nas.cli.layers import write_layers  # torch: only where a run has not yet told its layers

        write_layers(run, contents.best)
    return write_report(run)


def _tells_its_space(contents: Contents) -> bool:
    return bool(contents.config.get("space", {}).get("settings")) or bool(contents.passes)


def _compared(paths: Sequence[Path], page: Path) -> Path:
    contents = [read_contents(RunDir.read(path)) for path in paths]
    for note in notices(contents):
        log(f"warning: {note}")
    if page.is_dir():
        raise InvalidSetting(f"--out {str(page)!r} is a folder; name the page, such as {str(page / COMPARISON)!r}")
    try:
        files.make_folder(page.parent)
        files.replace(page, files.utf8(comparison_html(contents)))
    except OSError as error:
        raise InvalidSetting(f"--out {str(page)!r} cannot be written ({error.strerror}); choose another --out") from error
    return page
