"""The run directory that a command works in: made or gone on with, and what is said when the work is interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from nas.cli import elapsed
from nas.cli.changes import how_to_resume, record_changes
from nas.cli.errors import Interrupted
from nas.cli.layers import write_layers
from nas.cli.places import PLACES, data_config, moved, require_data, stored_places
from nas.cli.progress import log
from nas.cli.scoring import with_errors
from nas.cli.settings import require_folder
from nas.cli.signals import was_interrupted
from nas.cost.measure import BUSY
from nas.data.dataset import Dataset
from nas.data.load import load
from nas.errors import InvalidSetting, TrainingDiverged, VerificationFailed
from nas.failures import machine_failure
from nas.report.contents import VERIFY, network
from nas.report.passes import config_of
from nas.report.write import write_report
from nas.rundir import RunDir


@contextmanager
def working(config: Mapping[str, Any], resumed: Path | None, out: Path | None) -> Iterator[RunDir]:
    """Open or create the run directory of the command that `config` names, and say how to resume when interrupted."""
    command, before = config["command"], elapsed.spent(resumed) if resumed else 0.0
    with RunDir.open(resumed) if resumed else RunDir.create(command, config, out) as run:
        if resumed:
            refuse_changes(run, config)
            record_changes(run, config)
        elapsed.begin(run, before)
        log(f"run directory {run.path}")
        try:
            yield run
        except torch.OutOfMemoryError as error:
            raise InvalidSetting(
                f"the memory of {config['device']['type']} ran out ({error}); start again with a lower --batch-size"
            ) from None
        except TrainingDiverged as error:
            raise how_to_resume(error, run, command) from None
        except BaseException as error:
            again = f"nas {command} --resume --out {quote(str(run.path))}"
            if isinstance(error, KeyboardInterrupt) or was_interrupted():
                raise Interrupted(f"resume with: {again}") from None
            failure = machine_failure(error) if isinstance(error, Exception) else None
            if failure is None:
                raise
            failure.resume = again if run.path.is_dir() else ""
            raise failure from error


def concluded(run: RunDir, summary: dict[str, Any], announce: Callable[[RunDir, dict[str, Any]], None], as_json: bool) -> None:
    """Write the summary and the report of a run that delivered, and tell of it. Raises VerificationFailed if a check failed."""
    summary["seconds"] = elapsed.total(run, summary["seconds"])
    summary = with_errors(summary, config_of(run))
    write_layers(run, network(summary["best"]))
    write_report(run, summary)
    # last, for it says that nothing is missing
    run.write_json(elapsed.SUMMARY, summary)
    elapsed.end(run)
    announce(run, summary)
    log(f"files in {run.path}/best, report in {run.path}/report.html")
    if was_busy(run, summary):
        log(f"warning: the machine was busy, and the times tell little; take them again in quiet: nas verify {run.path}")
    if as_json:
        print(json.dumps(summary))
    if not summary["verified"]:
        raise VerificationFailed(f"the network in {run.path}/best does not hold what it should: {_failed(run)}")


def was_busy(run: RunDir, summary: Mapping[str, Any]) -> bool:
    """Whether other work disturbed the times that a summary tells: those of `timed`, else of what was verified."""
    if "timed" in summary:
        return any(BUSY in context for context in summary["timed"].values())
    verdict = run.path / VERIFY
    return verdict.is_file() and BUSY in verdict.read_text(encoding="utf-8")


def _failed(run: RunDir) -> str:
    """What of best/verify.json failed, in words."""
    verdict = run.record_if_there(VERIFY)
    if verdict.get("ok", True):
        return "a pass before the last one failed"
    return f"{'; '.join(failures(verdict))}; see {VERIFY}"


def failures(verdict: Mapping[str, Any]) -> list[str]:
    """What of the content of a verify.json failed, in words."""
    rows = [(row["name"], row) for row in verdict["checks"]] + [(row["text"], row) for row in verdict["budgets"]]
    return [f"{name} ({row['detail']})" for name, row in rows if not row["ok"]]


def data_of(config: Mapping[str, Any], data: str | None = None) -> Dataset:
    """The data that a run read, by its configuration; `data` is where they are now. Raises InvalidData, InvalidSetting."""
    options = {**config["options"], **stored_places(config["options"], config.get(PLACES))}
    if data is not None:
        options["data_at"] = moved(str(options["data"]), data)
    require_folder(options.get("data_dir"))
    require_data(options)
    return load(data_config(options, config["data"]["resolution"], least=1))


def refuse_changes(run: RunDir, config: Mapping[str, Any]) -> None:
    """Raise InvalidSetting if the data or the space are no longer what the run was started with."""
    for part in ("data", "space"):
        if run.config[part] != config[part]:
            raise InvalidSetting(
                f"the {part} of {run.path} changed since it was started ({config[part].get('name') or 'none'}); start a new run"
            )
