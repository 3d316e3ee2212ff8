"""The work of `nas diff`: two run directories as one JSON object that holds what differs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.cli.diff_text import print_difference
from nas.errors import InvalidSetting
from nas.report.contents import VAL_ACCURACY, Contents, front_of, metric_names, read_contents
from nas.report.passes import config_of
from nas.rundir import RunDir
from nas.trial import dominates, hypervolume

# of the worst values: networks at the ends of a front count too
ROOM = 1.1
OF_THIS_MACHINE = ("latency_ms", "energy_mj")
Json = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One of the two runs; `contents` are None as long as no network was evaluated."""

    path: Path
    config: Mapping[str, Any]
    contents: Contents | None

    @property
    def fingerprint(self) -> str | None:
        """That of the data, None where there were none."""
        return self.config.get("data", {}).get("fingerprint")

    @property
    def results(self) -> Json:
        """The metrics of the best network, and what they took."""
        if self.contents is None:
            return {}
        summary = self.contents.summary
        seconds = summary.get("seconds")
        return {
            **self.contents.best.metrics,
            "trials": summary.get("trials", len(self.contents.trials)),  # of a chain its passes
            **({"seconds": seconds} if seconds is not None else {}),
        }


def run_diff(a: Path, b: Path, as_json: bool) -> None:
    """The whole of `nas diff`. Raises InvalidSetting for what is no run directory, CorruptRun."""
    found = compared(read_side(a), read_side(b))
    if as_json:
        print(json.dumps(found))
    else:
        print_difference(found)


def read_side(path: Path) -> Side:
    """Read a run directory. Raises InvalidSetting, CorruptRun."""
    run = RunDir.read(path)
    try:
        contents = read_contents(run)
    except InvalidSetting:  # nothing was evaluated: its settings can be compared all the same
        contents = None
    return Side(path, config_of(run), contents)


def compared(a: Side, b: Side) -> Json:
    """All that differs, by section; what one side does not have is absent there."""
    return {
        "command": "diff",
        "a": str(a.path),
        "b": str(b.path),
        "notes": list(_notes(a, b)),
        "settings": _settings(a.config, b.config),
        "versions": changed(a.config.get("versions", {}), b.config.get("versions", {})),
        "device": changed(_device(a.config), _device(b.config)),
        "data": changed(a.config.get("data", {}), b.config.get("data", {})),
        "budgets": _budgets(a.contents, b.contents),
        "results": _results(a, b),
        "front": _front(a, b),
        "architecture": _architecture(a, b),
    }


# -- what the runs were given


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> Json:
    """The values of two nested mappings that differ, by their path: {"training.lr": {"a": 0.1, "b": 0.2}}."""
    flat = {"a": _flat(a), "b": _flat(b)}
    names = dict.fromkeys([*flat["a"], *flat["b"]])
    pairs = {name: {side: values[name] for side, values in flat.items() if name in values} for name in names}
    return {name: pair for name, pair in pairs.items() if pair.get("a") != pair.get("b")}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Json:
    result: Json = {}
    for name, item in value.items():
        result |= _flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {f"{prefix}{name}": item}
    return result


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Json:
    """Options, budgets aside; then what defaults were resolved to, and the space, where no option says so already.

    Of two commands, or two spaces, only what both have.
    """
    options = changed(*({n: v for n, v in side.get("options", {}).items() if n != "budget"} for side in (a, b)))
    parts = ("training", "augmentation", "space", "objectives")
    derived = changed(*({name: side[name] for name in parts if name in side} for side in (a, b)))
    derived = {name: pair for name, pair in derived.items() if name.partition(".")[2] not in options}
    found = {**changed({"command": a.get("command")}, {"command": b.get("command")}), **options, **derived}
    if not {"command", "space.name"} & set(found):
        return found
    return {name: pair for name, pair in found.items() if len(pair) == 2}


def _device(config: Mapping[str, Any]) -> Json:
    return {**config.get("device", {}), "target": config.get("target", {})}


def _notes(a: Side, b: Side) -> Iterable[str]:
    commands = [side.config.get("command") for side in (a, b)]
    if commands[0] != commands[1]:
        yield f"different commands ({commands[0]} and {commands[1]}): only settings that both have are compared"
    if a.fingerprint != b.fingerprint:
        names = [f"{s.config['data']['name']} {s.fingerprint}" if s.fingerprint else "no data" for s in (a, b)]
        yield f"different data ({names[0]}; {names[1]}): accuracies are of different images, and not to be compared"
    for side in (a, b):
        if side.contents is None:
            yield f"{side.path} has evaluated no network yet"
        elif not side.contents.finished:
            yield f"{side.path} has not ended: its best network so far, by what is known of it"
    if not _one_space(a, b):
        yield "different spaces: architectures are not compared"


# -- what they found


def _budgets(a: Contents | None, b: Contents | None) -> Json:
    """Limit, value and verdict by metric, where any of them differs."""
    rows = [{row.metric: row for row in side.budgets} if side else {} for side in (a, b)]
    found: Json = {}
    for name in dict.fromkeys([*rows[0], *rows[1]]):
        pair = {side: vars(row[name]) for side, row in zip("ab", rows, strict=True) if name in row}
        if pair.get("a") != pair.get("b"):
            found[name] = {side: {k: v for k, v in row.items() if v is not None} for side, row in pair.items()}
    return found


def _results(a: Side, b: Side) -> Json:
    """Metrics of both best networks with difference and percent of A; equal ones too, for they are an answer."""
    bests = [side.contents.best for side in (a, b) if side.contents]
    found: Json = {}
    for name in [*metric_names(bests), "trials", "seconds"]:
        row = {side: values[name] for side, values in (("a", a.results), ("b", b.results)) if name in values}
        if len(row) == 2:
            row["difference"] = row["b"] - row["a"]
            row |= {"percent": 100 * row["difference"] / row["a"]} if row["a"] else {}
            row |= {"spread": spread} if (spread := max(_spread(a, name), _spread(b, name))) else {}
        if row:
            found[name] = row
    return found


def _spread(side: Side, name: str) -> float:
    """The interquartile range of a metric that was measured, 0 of others."""
    taken = side.contents.verify.get("metrics", {}) if side.contents else {}
    return taken.get(name, {}).get("spread") or 0.0


def _front(a: Side, b: Side) -> Json:
    """Hypervolumes in one box, and how many networks of each front the other one beats; or why that cannot be told."""
    names, reason = _common(a, b)
    if reason or a.contents is None or b.contents is None:
        return {"reason": reason}
    points = [_front_points(side, names) for side in (a.contents, b.contents)]
    if not all(map(len, points)):
        return {"reason": f"a run has no network whose {', '.join(names)} are known"}
    reference = ROOM * np.concatenate(points).max(axis=0)
    reference[reference == 0] = 1.0
    found: Json = {"objectives": ["val_error", *names], "reference": reference.tolist()}
    for side, own, other in zip("ab", points, points[::-1], strict=True):
        beaten = sum(any(dominates(x, y) for x in other) for y in own)
        share = hypervolume(own / reference, np.ones_like(reference))
        found[side] = {"networks": len(own), "beaten": beaten, "hypervolume": share}
    return found


def _common(a: Side, b: Side) -> tuple[list[str], str]:
    """Costs that both runs minimize, and why their fronts cannot be compared, if so."""
    if a.contents is None or b.contents is None:
        return [], "a run has evaluated no network"
    if a.fingerprint is None or a.fingerprint != b.fingerprint:
        return [], "the accuracies are not of the same images"
    names = [name for name in a.contents.objectives if name in b.contents.objectives]
    if not names:
        return [], "the runs minimize different costs"
    if a.config.get("target") != b.config.get("target") and any(name in OF_THIS_MACHINE for name in names):
        return [], "times were taken on different targets"
    return names, ""


def _front_points(contents: Contents, names: Sequence[str]) -> np.ndarray:
    """Validation error and costs of the front, (networks, 1 + names)."""
    metrics = [network.metrics for network in front_of(contents.trials, names)]
    return np.array([[1 - m[VAL_ACCURACY], *(m[n] for n in names)] for m in metrics]).reshape(-1, 1 + len(names))


def _one_space(a: Side, b: Side) -> bool:
    return a.config.get("space") == b.config.get("space")


def _architecture(a: Side, b: Side) -> Json:
    """The choices of the best networks that differ, of one space; a choice that a network does not have is absent."""
    if a.contents is None or b.contents is None or not _one_space(a, b):
        return {}
    return changed(a.contents.best.choices, b.contents.best.choices)
