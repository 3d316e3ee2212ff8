"""The work of `nas watch`: a run directory as it is at a moment, read again and again."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.cli.progress import PLAIN_SECONDS
from nas.cli.pruning.settings import SPARSE
from nas.cli.watch_text import line, live, printed
from nas.errors import InvalidSetting
from nas.files import LOCK, read_regular
from nas.report.contents import SUMMARY, Contents, read_contents
from nas.report.latency import LOG as TIMINGS
from nas.report.passes import COMPRESS, pass_runs
from nas.report.training import LOG as TRAININGS
from nas.rundir import TRIALS, RunDir

FOREVER = 10**9
ENDED, RUNNING, STOPPED = "ended", "running", "stopped"
LAST = 5
Json = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; `every` is in seconds."""

    run: Path
    once: bool = False
    every: float = 2.0
    tensorboard: bool = False


@dataclass(frozen=True)
class Stage:
    """What a run does, and how far it is; `total` is None where that is not known."""

    name: str
    done: int = 0
    total: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """A run at a moment. `process` works in it, `age` is that of its newest record in seconds; `counts` are trials by state.

    `contents` are None as long as no network was evaluated; `last` are the newest records of the log that grew last.
    """

    path: Path
    config: Mapping[str, Any]
    state: str
    process: int | None
    stage: Stage
    counts: Mapping[str, int]
    contents: Contents | None
    log: str
    last: tuple[Json, ...]
    age: float

    @property
    def command(self) -> str:
        """The command that the run is of."""
        return str(self.config.get("command"))

    def to_json(self) -> Json:
        """Plain data."""
        best = self.contents.best if self.contents else None
        value = {
            "command": "watch",
            "run": str(self.path),
            "of": self.command,
            "state": self.state,
            "stage": {name: part for name, part in vars(self.stage).items() if part is not None},
            "trials": dict(self.counts),
            "seconds_since_record": round(self.age, 1),
            "front": [{"key": n.key, "metrics": n.metrics} for n in self.contents.front] if self.contents else [],
        }
        return {**value, "best": {"key": best.key, "metrics": best.metrics}} if best else value


def run_watch(wanted: Wanted, as_json: bool) -> None:
    """The whole of `nas watch`. Raises InvalidSetting for what is no run directory, MissingPackage, CorruptRun."""
    look = Looker(RunDir.read(wanted.run))
    with warnings.catch_warnings(), _events(look.run, wanted.tensorboard) as follow:
        warnings.simplefilter("ignore")  # a line that is being written is torn
        follow()
        if as_json:
            print(json.dumps(look().to_json()))
        elif wanted.once:
            printed(look())
        else:
            try:
                (_watch_live if sys.stdout.isatty() else _watch_plain)(_looks(look, follow, wanted.every))
            except KeyboardInterrupt:  # how one stops looking
                return


def _looks(look: Looker, follow: Callable[[], None], every: float) -> Iterator[Snapshot]:
    """Snapshots until the run goes on no more."""
    for _ in range(FOREVER):
        follow()
        snapshot = look()
        yield snapshot
        if snapshot.state != RUNNING:
            return
        time.sleep(every)


def _watch_live(looks: Iterator[Snapshot]) -> None:
    with live() as show:
        for snapshot in looks:
            show(snapshot)


def _watch_plain(looks: Iterator[Snapshot]) -> None:
    """Print a line at most every PLAIN_SECONDS, and a last one."""
    shown = -PLAIN_SECONDS
    for snapshot in looks:
        if snapshot.state != RUNNING or time.monotonic() - shown >= PLAIN_SECONDS:
            print(line(snapshot), flush=True)
            shown = time.monotonic()


@contextmanager
def _events(run: RunDir, wanted: bool) -> Iterator[Callable[[], None]]:
    """What writes the new records as event files, and does nothing where that is not wanted."""
    if not wanted:
        yield lambda: None
        return
    from nas.cli.events import Events  # an extra

    with Events(run) as events:
        yield events.follow


# -- a look


class Looker:
    """Reads a run directory; files that did not change since the last look are not read again."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._seen: tuple[tuple[Path, int], ...] = ()
        self._contents: Contents | None = None
        self._pass: Looker | None = None
        self._logs: dict[str, list[Json]] = {}

    def __call__(self) -> Snapshot:
        """The run as it is now; of `nas compress`, the pass that it works on. Raises CorruptRun."""
        now = self._now()
        if now.command != COMPRESS or now.state == ENDED or not (passes := pass_runs(self.run.path)):
            return now
        if self._pass is None or self._pass.run.path != passes[-1]:
            self._pass = Looker(RunDir.read(passes[-1]))
        inner = self._pass()
        name = f"{passes[-1].name} ({len(passes)} of {len(now.config['recipe']['steps'])} passes): {inner.stage.name}"
        return replace(
            inner,
            path=now.path,
            config=now.config,
            state=now.state,
            process=now.process,
            stage=replace(inner.stage, name=name),
            age=min(now.age, inner.age),
        )

    def _now(self) -> Snapshot:
        logs = {path.name: path for path in sorted(self.run.path.glob("*.jsonl"))}
        seen = tuple((path, path.stat().st_size) for path in (*logs.values(), self.run.path / SUMMARY) if path.is_file())
        if seen != self._seen:
            self._read(list(logs))
            self._seen = seen
        newest = max(logs, key=lambda name: logs[name].stat().st_mtime_ns, default="")
        process, ended = _process(self.run.path), (self.run.path / SUMMARY).is_file()
        counts = Counter(record["state"] for record in self._logs.get(TRIALS, ()))
        return Snapshot(
            path=self.run.path,
            config=self.run.config,
            state=ENDED if ended else RUNNING if process else STOPPED,
            process=process,
            stage=Stage("finished") if ended else self._stage(newest, counts),
            counts=counts,
            contents=self._contents,
            log=newest,
            last=tuple(self._logs.get(newest, ())[-LAST:]),
            age=_age(self.run.path),
        )

    def _read(self, names: list[str]) -> None:
        self._logs = {name: self.run.read_lines(name) for name in names}
        try:
            self._contents = read_contents(self.run)
        except InvalidSetting:  # nothing was evaluated yet
            self._contents = None

    def _stage(self, newest: str, counts: Mapping[str, int]) -> Stage:
        """What is being done, by the log that grew last."""
        records = self._logs.get(newest)
        if newest == TRAININGS and records and records[-1]["step"] < records[-1]["steps"]:
            return Stage(records[-1]["training"], records[-1]["step"], records[-1]["steps"])
        if newest == TIMINGS:
            return Stage("timing", len(self._logs[TIMINGS]))
        total, done = wanted_trials(self.run.config), counts.get("complete", 0)
        if self.run.config.get("command") == "prune":
            done += counts.get("infeasible", 0)  # levels of a sweep that are left out
        if total and done >= total:
            return Stage("writing and verifying", done, total)
        return Stage("trials" if records else "starting", done, total)


def wanted_trials(config: Mapping[str, Any]) -> int | None:
    """How many networks a run evaluates, None where its command does not say so."""
    command = str(config.get("command"))
    return WANTED[command](config) if command in WANTED else None


def _of_search(config: Mapping[str, Any]) -> int | None:
    return config.get("plan", config.get("options", {})).get("trials")


def _of_prune(config: Mapping[str, Any]) -> int:
    """The original, and one for each aim."""
    options = config.get("options", {})
    sweep = options.get("sweep")
    zeros = options.get("method") == SPARSE and options.get("sparsity") is not None
    return 1 + bool(options.get("budget")) + (len(sweep.split(",")) if sweep else 0) + zeros


def _of_quantize(config: Mapping[str, Any]) -> int:
    """The original, rounded, and trained on."""
    return 2 + ("training" in config)


def _of_compress(config: Mapping[str, Any]) -> int:
    """The original, and what each pass hands over."""
    return 1 + len(config["recipe"]["steps"])


WANTED: Mapping[str, Callable[[Mapping[str, Any]], int | None]] = {
    "search": _of_search,
    "baseline": _of_search,
    "prune": _of_prune,
    "quantize": _of_quantize,
    COMPRESS: _of_compress,
}


def _process(path: Path) -> int | None:
    """The process of this machine that works in a run, None if there is none."""
    try:
        process = int(read_regular(path / LOCK))
        os.kill(process, 0)  # asks whether it is there, and sends nothing
    except PermissionError:  # it is another user's
        return process
    except (OSError, ValueError, OverflowError):
        return None
    return process


def _age(path: Path) -> float:
    """Seconds since a log, a checkpoint or a file of the run was written last."""
    files = [*path.glob("*.json*"), *path.glob("checkpoint/*.json")]
    return max(0.0, time.time() - max(file.stat().st_mtime for file in files))
