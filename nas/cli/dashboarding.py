"""The work of `nas dashboard`: what a run recorded as an Optuna study, and a server for it. Imports optuna-dashboard."""

from __future__ import annotations

import ipaddress
import json
import socket
import time
import warnings
import webbrowser
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from nas.architecture import Architecture, Option
from nas.cli.progress import log
from nas.cli.space import space_of
from nas.errors import InvalidSetting, MissingPackage
from nas.report.passes import pass_runs
from nas.rundir import RunDir
from nas.search.optuna_searcher import RecordedStudy
from nas.trial import Trial
from search_spaces import SPACES

EVERY = 2.0  # seconds between two looks into the run
FIRST_STUDY = "dashboard/studies/0"


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    run: Path
    host: str = "localhost"
    port: int = 8080
    open: bool = False
    editable: bool = False


def run_dashboard(wanted: Wanted) -> None:
    """The whole of `nas dashboard`. Raises InvalidSetting for a run without trials or a port in use, MissingPackage."""
    followed = Followed(RunDir.read(wanted.run))
    app = protected(application(followed), wanted)
    if not _is_of_this_machine(wanted.host):
        log(f"warning: --host {wanted.host} lets other machines read this run, without a password and unencrypted")
    with served(app, wanted, followed.follow) as server:
        address = f"http://{wanted.host}:{server.server_port}/{FIRST_STUDY}"
        log(f"{followed.count} trials of {wanted.run} on {address}; Ctrl-C ends it")
        if wanted.open:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:  # how one stops it
            log("stopped")


def application(followed: Followed) -> Callable[..., Any]:
    """The pages of optuna-dashboard for a study. Raises MissingPackage."""
    try:
        from optuna_dashboard import wsgi  # an extra
    except ImportError as error:
        raise MissingPackage(
            "nas dashboard needs optuna-dashboard; install it with: pip install 'netcarver[dashboard]'"
        ) from error
    return wsgi(followed.study.storage)


# -- whom it answers


def protected(app: Callable[..., Any], wanted: Wanted) -> Callable[..., Any]:
    """The pages for requests that a page of another site cannot have made; without `editable`, reading alone.

    A site whose name was pointed to this machine (DNS rebinding) shows in Host, one that sends a form or a script in Origin.
    """

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        reason = _refusal(environ, wanted)
        if not reason:
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": reason}).encode()]

    return answer


def _refusal(environ: Mapping[str, Any], wanted: Wanted) -> str:
    """Why a request is not answered, empty if it is."""
    host, origin = str(environ.get("HTTP_HOST", "")), environ.get("HTTP_ORIGIN")
    name = urlsplit(f"//{host}").hostname or ""
    if name not in (wanted.host, "localhost", socket.gethostname().lower()) and not _is_address(name):
        return f"the host {host[:80]!r} is not this dashboard; open it as http://{wanted.host}:PORT"
    if origin is not None and urlsplit(str(origin)).netloc != host:
        return f"the request comes from a page of {str(origin)[:80]!r}"
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and not wanted.editable:
        return "this dashboard is read-only; start it with --editable to write notes, which end with it"
    return ""


def _is_address(name: str) -> bool:
    """Whether a host is numbers, which no site can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_of_this_machine(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


# -- the study


class Followed:
    """The study of a run, which gets the trials that the run records.

    Raises InvalidSetting if the run has evaluated no network.
    """

    def __init__(self, run: RunDir) -> None:
        records = run.trials()
        if not any("val_accuracy" in record["scores"] for record in records):
            passes = ", ".join(map(str, pass_runs(run.path)))
            raise InvalidSetting(
                f"{str(run.path)!r} has nothing to show: none of its {len(records)} trials has an accuracy; "
                + (f"give one of its passes: {passes}" if passes else "let the run go on, or give another one")
            )
        self.run, self.count = run, 0
        objectives = run.config.get("objectives") or ["macs"]
        self.study = RecordedStudy(run.path.resolve().name, objectives, options_of(run.config, records))
        self.follow()

    def follow(self) -> None:
        """Add the trials that are new."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a line that is being written is torn
            records = self.run.trials()
        for record in records[self.count :]:
            stored = record["architecture"]
            self.study.add(Trial.from_json(record, Architecture(stored["space"], stored["choices"])))
        self.count = max(self.count, len(records))


def options_of(config: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Sequence[Option]]:
    """The options of each choice: those of the space, or of a pruning up to all units that a group of the original has."""
    if config.get("space", {}).get("name") in SPACES:
        return {choice.name: choice.options for choice in space_of(config).choices}
    whole = records[0]["architecture"]["choices"]
    return {name: range(width + 1) for name, width in whole.items() if type(width) is int}


# -- the server


class Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own, and looks into the run in between."""

    daemon_threads = True
    follow: Callable[[], None]
    looked = 0.0

    def service_actions(self) -> None:
        """Called about twice a second."""
        if time.monotonic() - self.looked >= EVERY:
            self.follow()
            self.looked = time.monotonic()


class Quiet(WSGIRequestHandler):
    """Says nothing of each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base class
        """Nothing."""


def served(app: Callable[..., Any], wanted: Wanted, follow: Callable[[], None]) -> Server:
    """A server that listens. Raises InvalidSetting where it cannot."""
    try:
        server = Server((wanted.host, wanted.port), Quiet)
    except OSError as error:
        raise InvalidSetting(
            f"--host {wanted.host!r} --port {wanted.port} cannot be listened on ({error.strerror}); choose another --port"
        ) from error
    server.set_app(app)
    server.follow = follow
    return server
