"""Latency tables that others published, for devices that are not at hand.

They come in two kinds. A ChoiceTable has a time for each option of each choice of one space, as HW-NAS-Bench (Li et al. 2021)
has for FBNet; it fits that space alone, in the very form that was measured. A UnitTable has a time for each block, whatever
network it is in, as ProxylessNAS (Cai et al. 2019) and Once for All (Cai et al. 2020) have. A further table is one line in
FOREIGN.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from nas.architecture import Architecture, SearchSpace
from nas.budget import Metric
from nas.errors import InvalidSetting, did_you_mean
from nas.latency.costing import CostModel, OwnLatency
from nas.latency.predictor import Predictor
from nas.latency.proxyless import read_proxyless
from nas.latency.table import LatencyTable
from nas.latency.target import Target
from nas.plan import Plan

TABLES = Path(__file__).parent / "tables"


class ForeignTable(Protocol):
    """A published table: `name` as in `15ms@name`, and where it comes from."""

    @property
    def name(self) -> str:
        """Name of the table."""

    @property
    def source(self) -> str:
        """Who published it, for which device."""

    def check(self, space: SearchSpace, accept: bool = False) -> None:
        """Raise InvalidSetting, with the difference and the remedy, if the table tells nothing of networks of `space`.

        With `accept` it is enough that the table has numbers for them, though they were measured in another form.
        """

    def model(self, space: SearchSpace, accept: bool = False) -> CostModel:
        """What the table says of networks of `space`: a function that gives `latency_ms`. Raises as `check`."""


@dataclass(frozen=True)
class ChoiceTable:
    """Times in ms of the options of a space: a network takes `base_ms` and the sum over its choices.

    `settings` are those of the space that was measured. Another number of classes is let pass, and told in the metric.
    """

    name: str
    source: str
    space: str
    settings: Mapping[str, object]
    classes: int
    base_ms: float
    ms: Mapping[tuple[str, object], float]

    def check(self, space: SearchSpace, accept: bool = False) -> None:
        """Raise InvalidSetting if `space` is not the one that was measured, or with `accept` another form of it."""
        wrong = self._unlike(space)
        if space.name == self.space and (not wrong or (accept and self._has_all(space))):
            return
        details = [name for name in wrong if name != "resolutions"] if space.name == self.space else []
        remedy = f"add --space {self.space} --resolution {_pixels(self.settings)} --set width=1"
        if "in_channels" in details:
            remedy += f", and take images of {self.settings['in_channels']} channels"
        if space.name == self.space and self._has_all(space):
            remedy += ", or add --accept-foreign-table"
        raise InvalidSetting(
            f"table {self.name} was measured for {_form(self.space, self.settings, details, measured=True)}; "
            f"this is {_form(space.name, space.settings, details)}: {remedy}"
        )

    def latency(self, space: SearchSpace, arch: Architecture, accept: bool = False) -> Metric:
        """Latency of `arch`, the exact sum of the published numbers. Raises InvalidSetting as `check`."""
        self.check(space, accept)
        ms = self.base_ms + sum(self.ms[name, option] for name, option in arch.choices.items() if name != "resolution")
        notes = [self.source, "not measured here"]
        if space.classes != self.classes:
            notes.append(f"with a classifier of {self.classes} classes, not {space.classes}")
        if wrong := self._unlike(space):
            notes.append(
                f"measured for {_form(self.space, self.settings, wrong)}, accepted for {_pixels(space.settings)} pixels"
            )
        return Metric(ms, "ms", f"table {self.name}", context="; ".join(notes))

    def model(self, space: SearchSpace, accept: bool = False) -> CostModel:
        """Give `latency_ms` of networks of `space`. Raises InvalidSetting as `check`."""
        self.check(space, accept)
        return partial(self._metrics, space, accept)

    def _metrics(self, space: SearchSpace, accept: bool, arch: Architecture, plan: Plan) -> Mapping[str, Metric]:
        return {"latency_ms": self.latency(space, arch, accept)}

    def _unlike(self, space: SearchSpace) -> list[str]:
        return [name for name, wanted in self.settings.items() if space.settings.get(name) != wanted]

    def _has_all(self, space: SearchSpace) -> bool:
        """Whether there is a number for every option of every choice."""
        wanted = {(c.name, option) for c in space.choices for option in c.options if c.name != "resolution"}
        return wanted <= set(self.ms)


@dataclass(frozen=True)
class UnitTable:
    """Times of blocks that any network may be made of."""

    table: LatencyTable

    @property
    def name(self) -> str:
        """Name of the table."""
        return self.table.name

    @property
    def source(self) -> str:
        """Who published it, for which device."""
        return str(self.table.made["source"])

    def check(self, space: SearchSpace, accept: bool = False) -> None:
        """Raise InvalidSetting if the table lacks a block of the largest network of `space`."""
        missing = Predictor(self.table).predict(space.plan(space.largest())).missing
        if missing:
            raise InvalidSetting(
                f"table {self.name} has no time for {len(missing)} blocks of space {space.id}, such as {missing[0]!r}; "
                "take a space that is made of its blocks, or measure a table of your own with nas profile"
            )

    def model(self, space: SearchSpace, accept: bool = False) -> CostModel:
        """Give the sum over the blocks of a network of `space`. Raises InvalidSetting as `check`."""
        self.check(space)
        return OwnLatency(Predictor(self.table))


# -- the tables that are shipped

# FBNet for CIFAR-100 as HW-NAS-Bench has it: width, layers and stride of each stage, channels and stride of the stem
FBNET_CLASSES = 100
FBNET_SETTINGS = {
    "in_channels": 3,
    "resolutions": (32,),
    "stages": ((16, 1, 1), (24, 4, 1), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1)),
    "stem": (16, 1),
    "features": 1504,
}
PIXEL1 = Target("Google Pixel 1", "TensorFlow Lite", "of unpublished version", "unpublished precision", cores=4)


def read_fbnet(name: str, device: str) -> ChoiceTable:
    """Read the column `name` of the shipped FBNet table."""
    with (TABLES / "fbnet.csv").open(newline="") as file:
        rows = [(int(row["layer"]), row["op"], float(row[name])) for row in csv.DictReader(file)]
    base = next(ms for layer, _, ms in rows if layer < 0)
    times = {(f"l{layer}.op", op): ms for layer, op, ms in rows if layer >= 0}
    source = f"HW-NAS-Bench (Li et al. 2021), FBNet for CIFAR-100 on {device}"
    return ChoiceTable(name, source, "fbnet", FBNET_SETTINGS, FBNET_CLASSES, base, times)


def read_pixel1() -> UnitTable:
    """Read the shipped table of ProxylessNAS."""
    source = f"ProxylessNAS (Cai et al. 2019), its blocks at 224 pixels on a {PIXEL1.device}"
    return UnitTable(read_proxyless(TABLES / "proxylessnas_pixel1.csv", PIXEL1, "pixel1", source))


FOREIGN: dict[str, Callable[[], ForeignTable]] = {
    "pixel3": partial(read_fbnet, "pixel3", "a Google Pixel 3"),
    "raspi4": partial(read_fbnet, "raspi4", "a Raspberry Pi 4"),
    "eyeriss": partial(read_fbnet, "eyeriss", "the accelerator Eyeriss"),
    "fpga": partial(read_fbnet, "fpga", "an FPGA"),
    "pixel1": read_pixel1,
}

# those that fit a space; the blocks of pixel1 are those of no space, and it is for nas cost
FOR_SEARCH = tuple(name for name in FOREIGN if name != "pixel1")


def searchable(name: str) -> ForeignTable:
    """Read the published table `name` for a search. Raises InvalidSetting for one that fits no space."""
    if name in FOREIGN and name not in FOR_SEARCH:
        raise InvalidSetting(
            f"table {name} has the blocks of other networks than those of any space, and is for nas cost --table {name}; "
            f"for a search choose one of {', '.join(FOR_SEARCH)}, or measure a table with nas profile"
        )
    if name not in FOREIGN:
        near = did_you_mean(name, FOR_SEARCH)
        raise InvalidSetting(f"there is no published latency table {name!r}; choose one of {', '.join(FOR_SEARCH)}{near}")
    return FOREIGN[name]()


def foreign(name: str) -> ForeignTable:
    """Read the published table `name`. Raises InvalidSetting, with the names that there are."""
    if name not in FOREIGN:
        near = did_you_mean(name, FOREIGN)
        raise InvalidSetting(f"there is no published latency table {name!r}; choose one of {', '.join(FOREIGN)}{near}")
    return FOREIGN[name]()


def _pixels(settings: Mapping[str, object]) -> str:
    resolutions = settings["resolutions"]
    assert isinstance(resolutions, tuple)
    return "/".join(map(str, resolutions))


def _form(space: str, settings: Mapping[str, object], details: list[str], measured: bool = False) -> str:
    """A space in words, with those of its settings that matter."""
    plain = [f"{name}={settings.get(name)}" for name in details if not isinstance(settings.get(name), tuple)]
    others = [name for name in details if isinstance(settings.get(name), tuple)]
    shown = ", ".join(plain + ([f"other {' and '.join(others)}"] if others and not measured else []))
    return f"space {space} at {_pixels(settings)} pixels" + (f" with {shown}" if shown else "")
