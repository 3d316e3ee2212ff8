"""How a run was made: all that it takes to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from nas.report.augmentation import augmentation_words
from nas.report.contents import Contents
from nas.report.parts import Cell, Section, code, command, facts, folded
from nas.report.words import changes_of, duration, how_busy


def made(contents: Contents) -> Section:
    """Command, seed, data, space, device, versions, time, and all options."""
    config = contents.config
    line = command(str(config["argv"]), "that made this run") if "argv" in config else ""
    options = {str(name): code(value) for name, value in config.get("options", {}).items()}
    more = folded("all options", facts(options)) if options else ""
    return Section("made", "How it was made", f"{line}{facts(known_facts(contents))}{more}")


def known_facts(contents: Contents) -> dict[str, Cell]:
    """Name and escaped value of what a run was made with, empty where it is not known."""
    config, summary = contents.config, contents.summary
    data, space, device = (config.get(name, {}) for name in ("data", "space", "device"))
    threads = f"{device['threads']} threads" if "threads" in device else ""
    return {
        "seed": escape(str(config.get("seed", ""))),
        "changed on resume": escape(changes_of(config)),
        "data": escape(_sentence(data.get("name"), _sizes(data), _images(data))),
        "training images": escape(augmentation_words(config.get("augmentation", {}))),
        "data fingerprint": code(data["fingerprint"]) if "fingerprint" in data else "",
        "classes": escape(", ".join(map(str, data.get("class_names") or ()))),
        "space": escape(_sentence(space.get("name"), f"version {space['version']}" if "version" in space else "")),
        "device": escape(_sentence(device.get("name"), device.get("type"), threads)),
        "latency target": escape(contents.target),
        "load while timing": escape(how_busy(contents.taken.get("latency_ms"))),
        "duration": duration(summary["seconds"]) if "seconds" in summary else "",
        "versions": escape(", ".join(f"{name} {number}" for name, number in config.get("versions", {}).items())),
    }


def _sizes(data: Mapping[str, Any]) -> str:
    counts = [f"{data[split]} {name}" for split, name in (("train", "training"), ("val", "validation")) if split in data]
    return f"{' and '.join(counts)} images" if counts else ""


def _images(data: Mapping[str, Any]) -> str:
    if not {"channels", "resolution"} <= set(data):
        return ""
    return f"{data['channels']} x {data['resolution']} x {data['resolution']}"


def _sentence(*parts: object) -> str:
    return ", ".join(str(p) for p in parts if p)
