"""What stands first: the answer, what must be known before it is believed, the budgets, the network."""

from __future__ import annotations

from html import escape

from nas.report.contents import Contents, Network, metric_names
from nas.report.explorer import extract_command
from nas.report.parts import Section, code, command, folded, number, table, verdict
from nas.report.words import answer, name_of, plain, provenance, scored


def header(contents: Contents) -> str:
    """The name of the run, the answer, and notices."""
    notes = "".join(f'<p class="notice">{escape(note)}</p>' for note in notices(contents))
    return f"<header><p class=quiet>{escape(contents.name)}</p><h1>{escape(answer(contents))}</h1>{notes}</header>"


def notices(contents: Contents) -> list[str]:
    """What keeps the answer from being the last word."""
    notes = []
    if not contents.finished:
        shown = "the network of its last finished pass" if contents.passes else "the best network so far"
        verified = "" if contents.verify else ", and nothing of it is verified yet"
        notes.append(f"This run has not ended: {shown} is shown{verified}.")
    failed = [str(check["name"]) for check in contents.verify.get("checks", ()) if not check["ok"]]
    if failed:
        notes.append(f"Verification failed: {'; '.join(failed)}.")
    told = contents.config.get("notes")
    notes += [f"Data: {note}." for note in told if isinstance(note, str)] if isinstance(told, list) else []
    if contents.foreign_table:
        notes.append(
            f"The search was guided by the latency table of another target (--accept-foreign-table): {contents.foreign_table}."
        )
    return notes


def budgets(contents: Contents) -> Section | None:
    """Each budget with its limit, the value of the best network, and whether it keeps it."""
    rows = [
        [escape(b.text), escape(name_of(b.metric)), number(b.metric, b.limit), number(b.metric, b.value), verdict(b.ok)]
        for b in contents.budgets
    ]
    if not rows:
        return None
    return Section("budget", "Budget", table("Budgets", ["budget", "limits", "#limit", "#value", "verdict"], rows))


def best(contents: Contents) -> Section:
    """The metrics of the best network, how each was taken, and how to get its files."""
    rows = [
        [
            escape(name_of(m)),
            escape(scored(contents, m, contents.best.metrics[m])),
            escape(provenance(m, contents.taken.get(m))),
        ]
        for m in metric_names([contents.best])
    ]
    if contents.finished:
        title, files = "Best network", f"<p>Its files are in {code(contents.path + '/best')}.</p>"
    else:
        line = extract_command(contents, contents.best.key)
        title, files = "Best network so far", command(line, "that extracts it") if line else ""
    content = f"<div>{code(contents.best.key)}</div>{choices(contents.best)}{files}"
    return Section(
        "best", title, content + table(f"Metrics of the {title.lower()}", ["metric", "#value", "~how it was taken"], rows)
    )


def checks(contents: Contents) -> Section | None:
    """What was checked on the reloaded files."""
    rows = [
        [escape(str(c["name"])), plain(c["value"]), plain(c["expected"]), verdict(c["ok"], ("passed", "failed")),
         escape(str(c["detail"]))]
        for c in contents.verify.get("checks", ())
    ]  # fmt: skip
    if not rows:
        return None
    headings = ["check", "#value", "#expected", "verdict", "~detail"]
    return Section("verification", "Verification of the files", table("Checks of the files", headings, rows))


def choices(network: Network) -> str:
    """All choices of a network, on demand."""
    listed = ", ".join(f"{name}={value}" for name, value in network.choices.items())
    return folded(f"{len(network.choices)} choices", f"<code>{escape(listed)}</code>") if network.choices else ""
