"""The data of the interactive Pareto front and of the comparison, as nas/report/assets/explorer.js reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from nas.report.contents import VAL_ACCURACY, Contents, Network, metric_names
from nas.report.figures import embedded
from nas.report.history import MOST_SHOWN, thinned
from nas.report.words import axis_of, kind_of, name_of, unit_of

# the commands whose networks `nas extract` delivers
EXTRACTED = ("search", "baseline", "prune", "quantize", "compress")
SERIES = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "pentagon")


@dataclass(frozen=True)
class Entry:
    """A network of the figure: what is said of it, and the number of its run."""

    network: Network
    note: str
    run: int = 0


@dataclass(frozen=True)
class Trace:
    """Networks that look the same, by their numbers; `stairs` where the step line between them means something."""

    name: str
    colour: str
    members: Sequence[int]
    stairs: bool = False
    symbol: str = ""


@dataclass(frozen=True)
class Explorer:
    """All that the figure shows; the networks `pinned` are compared from the start, with the first one of them."""

    runs: Sequence[Contents]
    entries: Sequence[Entry]
    traces: Sequence[Trace]
    pinned: Sequence[int]

    @property
    def metrics(self) -> list[str]:
        """The metrics that any of the networks has."""
        return metric_names([e.network for e in self.entries])


def explore(contents: Contents) -> Explorer:
    """The evaluated networks of one run, its front and its best; of more than MOST_SHOWN dominated ones an even selection."""
    front = {n.key for n in contents.front}
    complete = [t for t in contents.trials if t.state == "complete"]  # a pruning without data knows no accuracies
    rows = {t.network.key: t for t in complete if t.network.key not in front}
    first = [t.network.key for t in contents.trials[:1] if contents.pruning is not None]
    original, plain = set(first), contents.plain
    # the network that is delivered may be the plain one, which another run extracts
    wins = plain is not None and plain.best.key == contents.best.key
    best = Entry(contents.best, best_note(contents), int(wins))
    tried = [
        Entry(t.network, f"trial {t.number}") for t in thinned(list(rows.values()), MOST_SHOWN) if t.network.key not in first
    ]
    # the best network is there twice where it is of the front: what was evaluated may have been trained on since
    notes = {contents.best.key: "as it was evaluated"} | dict.fromkeys(original, "original")
    others = [Entry(plain.best, "plain network", 1)] if plain and not wins else []
    notes |= {e.network.key: e.note for e in others}
    fronts = [
        Entry(n, notes.get(n.key, "on the front"), int(plain is not None and n.key == plain.best.key)) for n in contents.front
    ]
    beaten = [Entry(rows[key].network, "original") for key in first if key in rows]
    entries = [best, *fronts, *beaten, *others, *tried]
    evaluated = len(entries) - len(tried)
    plains = range(evaluated - len(others), evaluated)
    origins = [i for i, e in enumerate(entries) if e.note == "original"]
    traces = [
        Trace(f"evaluated ({len(complete)})", "trials", range(evaluated, len(entries))),
        Trace(f"front ({len(front)})", "front", range(1, 1 + len(fronts)), _has_steps(contents)),
        *([Trace("original", "original", origins, symbol="square")] if origins else []),
        *([Trace("plain network", "original", plains, symbol="diamond")] if plains else []),
        Trace(best.note, "best", [0]),
    ]
    return Explorer([contents, *([plain] if plain else [])], entries, traces, [0, *plains])


def explore_all(runs: Sequence[Contents]) -> Explorer:
    """The fronts of several runs over one another, and their best networks, which are compared."""
    entries = [Entry(c.best, best_note(c), i) for i, c in enumerate(runs)]
    traces: list[Trace] = []
    for i, contents in enumerate(runs):
        start = len(entries)
        entries += [Entry(n, "on the front", i) for n in contents.front]
        look = (f"series{i % 8}", range(start, len(entries)), _has_steps(contents), SERIES[i % len(SERIES)])
        traces.append(Trace(contents.name, *look))
    traces.append(Trace("best", "best", range(len(runs))))
    return Explorer(runs, entries, traces, list(range(len(runs)))[:8])


def best_note(contents: Contents) -> str:
    """What the best network is called."""
    return "delivered" if contents.finished else "best so far"


def explorer_json(explorer: Explorer) -> str:
    """Serialize it to stand in a script element."""
    networks = [e.network for e in explorer.entries]
    limits = {(b.metric, b.limit, b.text): b for c in explorer.runs for b in c.budgets}
    metrics = [_metric(name, networks, [b.limit for b in limits.values() if b.metric == name]) for name in explorer.metrics]
    x, y = default_axes(explorer)
    return embedded(
        {
            "metrics": metrics,
            "runs": [{"name": c.name, "extract": extract_command(c), "space": _space(c)} for c in explorer.runs],
            "networks": {
                "key": [n.key for n in networks],
                "note": [e.note for e in explorer.entries],
                "run": [e.run for e in explorer.entries],
                "values": {m["id"]: [n.metrics.get(m["id"]) for n in networks] for m in metrics},
            },
            "choices": _choices(networks),
            "traces": [_trace(t) for t in explorer.traces],
            "limits": [{"metric": b.metric, "value": b.limit, "text": b.text} for b in limits.values()],
            "x": x,
            "y": y,
            "pinned": list(explorer.pinned),
        }
    )


def default_axes(explorer: Explorer) -> tuple[str, str]:
    """The first objective against validation accuracy, where they are known; else what is."""
    known = explorer.metrics
    x = next((m for m in (*explorer.runs[0].objectives, *known) if m in known), "")
    return x, next((m for m in (VAL_ACCURACY, "latency_ms", *known) if m in known and m != x), x)


def extract_command(contents: Contents, key: str = "") -> str:
    """The command line that delivers a network of the run, empty for runs that keep the delivered one alone."""
    if contents.config.get("command") not in EXTRACTED:
        return ""
    return " ".join(["nas extract", quote(contents.path), *([quote(key)] if key else [])])


def _space(contents: Contents) -> str:
    """What the choices of a run belong to: those of different spaces have nothing in common, whatever their names."""
    return " ".join(str(contents.config.get("space", {}).get(name, "")) for name in ("name", "version"))


def _has_steps(contents: Contents) -> bool:
    """Whether the front is a line of steps; with more objectives it is a surface."""
    return len(contents.objectives) == 1 and all(VAL_ACCURACY in n.metrics for n in contents.front)


def _metric(name: str, networks: Sequence[Network], limits: Sequence[float]) -> Mapping[str, Any]:
    axis = axis_of(name, networks, limits)
    words = {"id": name, "name": name_of(name), "kind": kind_of(name), "unit": unit_of(name)}
    return {**words, "label": axis.label, "factor": axis.factor}


def _trace(trace: Trace) -> Mapping[str, Any]:
    found = {"name": trace.name, "meta": trace.colour, "members": list(trace.members), "stairs": trace.stairs}
    return found | ({"marker": {"symbol": trace.symbol, "size": 9}} if trace.symbol else {})


def _choices(networks: Iterable[Network]) -> Mapping[str, Any]:
    """For each choice its options, and which of them each network takes, -1 where it does not have the choice."""
    seen = list(networks)
    options = {name: list(dict.fromkeys(n.choices[name] for n in seen if name in n.choices)) for name in _names(seen)}
    place = {name: {option: i for i, option in enumerate(values)} for name, values in options.items()}
    at = {name: [place[name][n.choices[name]] if name in n.choices else -1 for n in seen] for name in options}
    return {"options": options, "at": at}


def _names(networks: Iterable[Network]) -> list[str]:
    return list(dict.fromkeys(name for n in networks for name in n.choices))
