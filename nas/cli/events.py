"""What a run has recorded, as event files of TensorBoard. The one file that imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from nas.errors import MissingPackage
from nas.report.contents import VAL_ACCURACY
from nas.report.latency import LOG as TIMINGS
from nas.report.training import LOG as TRAININGS
from nas.rundir import TRIALS, RunDir

FOLDER = "tensorboard"
Scalars = Iterator[tuple[str, float, int]]  # tag, value, step


class Events:
    """Writes RUN/tensorboard anew, and then what the logs of the run get.

    Raises MissingPackage where TensorBoard is not installed.
    """

    def __init__(self, run: RunDir) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # an extra
        except ImportError as error:
            raise MissingPackage(
                "--tensorboard needs tensorboard; install it with: pip install 'netcarver[tensorboard]'"
            ) from error
        folder = run.path / FOLDER
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        self._run, self._writer = run, SummaryWriter(str(folder))
        self._written = dict.fromkeys(LOGS, 0)
        self._best = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def follow(self) -> None:
        """Write the records that are new since the last call."""
        for log, scalars in LOGS.items():
            records = self._run.read_lines(log)
            for number, record in enumerate(records[self._written[log] :], self._written[log]):
                for tag, value, step in scalars(record, number):
                    self._add(tag, value, step)
            self._written[log] = len(records)
        self._writer.flush()

    def _add(self, tag: str, value: float, step: int) -> None:
        self._writer.add_scalar(tag, value, step)
        if tag == f"trials/{VAL_ACCURACY}" and value > self._best:
            self._best = value
            self._writer.add_scalar("trials/best_val_accuracy", value, step)


def _training(record: Mapping[str, Any], number: int) -> Scalars:
    for name in ("loss", "lr"):
        if name in record:
            yield f"{record['training']}/{name}", record[name], record["step"]


def _trial(record: Mapping[str, Any], number: int) -> Scalars:
    for name, value in record["scores"].items():
        yield f"trials/{name}", value, record["number"]
    for name, metric in record["cost"].items():
        yield f"trials/{name}", metric["value"], record["number"]


def _timing(record: Mapping[str, Any], number: int) -> Scalars:
    for name in ("measured_ms", "predicted_ms"):
        if record.get(name) is not None:
            yield f"latency/{name}", record[name], number


LOGS: dict[str, Callable[[Mapping[str, Any], int], Scalars]] = {TRAININGS: _training, TRIALS: _trial, TIMINGS: _timing}
