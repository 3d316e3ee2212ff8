"""What each kind of file of a run directory holds, for nas/records.py, which reads them.

A kind is a type below and one line in KINDS. What is there must have its type; fields that are not named hold anything. No
field has to be there: runs of older versions, and runs that go on, lack this and that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from nas.fields import Count, Key, Metrics, Number, Option, Positive, Shape, Size, Time


def record(name: str, /, **fields: Any) -> Any:  # noqa: ANN401 - types
    """The type of an object with these fields, each of which may be left away."""
    return TypedDict(name, fields, total=False)  # type: ignore[operator]


def whole(name: str, /, **fields: Any) -> Any:  # noqa: ANN401 - types
    """The type of an object with these fields, all of which it must have."""
    return TypedDict(name, fields)  # type: ignore[operator]


def many(kind: Any) -> Any:  # noqa: ANN401 - types
    """The type of a list of these."""
    return list[kind]


class Metric(msgspec.Struct, forbid_unknown_fields=True):
    """A number with where it came from."""

    value: Number
    unit: str
    method: str
    spread: Number | None = None
    context: str = ""


_ARCHITECTURE = {"space": str, "choices": dict[str, Option]}
# a network as values
Architecture = record("Architecture", **_ARCHITECTURE)
# a limit, and what a network has of it
Budget = record("Budget", text=str, metric=str, limit=Number, value=Number | None, ok=bool, detail=str)
# what is known of a data set
Data = record(
    "Data",
    name=str,
    fingerprint=str | None,
    classes=Size,
    class_names=list[str],
    channels=Size,
    resolution=Size,
    mean=list[Number],
    std=list[Number],
    train=Count,
    val=Count,
)
# a search space
Definition = record("Definition", name=str, version=int | str | None, settings=dict[str, Any])
# what a run computes on
Device = record("Device", type=str, name=str, threads=Count)


class Target(msgspec.Struct, forbid_unknown_fields=True):
    """What latency belongs to."""

    device: str
    runtime: str
    runtime_version: str
    precision: str = "fp32"
    batch: Size = 1
    threads: Size = 1
    cores: Size = 1


# a pass of a recipe
Step = record("Step", name=Key, options=dict[str, Any], bounds=Metrics)
# the passes of a chain
Recipe = record("Recipe", network=str, weights=str | None, steps=many(Step))
# what a resumed run was told otherwise
Change = record("Change", **{"from": Option | None}, option=str, to=Option | None)
# how the time of a search is divided
Plan = record(
    "Plan",
    **dict.fromkeys(("seconds", "estimate"), Time),
    **dict.fromkeys(("trials", "compared_steps"), Positive),
    **{"shared": bool, "supernet_steps": Positive | None, "final_steps": Count | None, "precision": str},
)
# a short training that a space was chosen by
Compared = record(
    "Compared",
    **dict.fromkeys(("family", "form", "space"), str),
    **dict.fromkeys(("macs", "step_ms", "val_accuracy"), Number),
    **{"round": Count, "key": Key, "widths": list[Size], "depth": Size, "resolution": Size, "steps": Positive},
)
# config.json
Config = record(
    "Config",
    command=str,
    argv=str,
    options=dict[str, Any],
    seed=Count,
    versions=dict[str, str],
    device=Device,
    target=Target,
    budgets=many(Budget),
    objectives=list[str],
    space=Definition,
    training=dict[str, Any],
    augmentation=dict[str, Any],
    data=Data,
    recipe=Recipe,
    changes=many(Change),
    plan=Plan,
    choice=many(Compared),
)
# a line of trials.jsonl
Trial = record(
    "Trial",
    number=Count,
    key=Key,
    architecture=Architecture,
    state=Literal["complete", "infeasible", "failed"],
    cost=dict[str, Metric],
    uncounted=list[str],
    scores=Metrics,
    seconds=Number,
    error=str,
)
# a line of training.jsonl
Training = record("Training", training=str, step=Count, steps=Positive, epoch=Count, loss=Number, lr=Number)
# a line of latency.jsonl
Timing = record(
    "Timing",
    attempt=Count,
    trials=Count,
    key=str,
    architecture=Architecture,
    predicted_ms=Number | None,
    measured_ms=Annotated[float, Meta(gt=0, le=1e100)],
    spread_ms=Number | None,
    context=str,
)
# a line of time.jsonl
Spent = record("Spent", stage=str, seconds=Time, steps=Count)
# a line of stages.jsonl
Stage = record("Stage", key=Key, stage=str, scores=Metrics, epochs=Count)
# a line of cuts.jsonl
Cut = record(
    "Cut",
    number=Count,
    key=Key,
    architecture=Architecture,
    cost=dict[str, Metric],
    uncounted=list[str],
    ratio=Number,
    infeasible=str,
)
# a line of passes.jsonl
Pass = record("Pass", number=Count, name=Key, metrics=Metrics, seconds=Number, ok=bool, broken=str, network=str)
# a network of a summary
Network = record("Network", key=Key, architecture=Architecture, metrics=Metrics)
# a network that was not delivered, and the one that was instead
Beside = record("Beside", best=Network, budget=many(Budget), wins=bool)
# what a network was made of
Original = record("Original", name=str, metrics=Metrics)
# a layer of a quantized network
QuantizedLayer = record(
    "QuantizedLayer",
    name=str,
    weight_bits=str | int,
    activation_bits=str | int,
    params=Number | None,
    macs=Number | None,
    sensitivity=Number | None,
)
# the whole network in one number format
PrecisionRow = record(
    "PrecisionRow",
    precision=str,
    latency_ms=Number | None,
    latency_spread=Number | None,
    test_accuracy=Number | None,
    size_bytes=Number | None,
    simulated=bool,
    note=str,
)
# a layer that costs accuracy
Costly = record("Costly", layer=str, share=Number, reason=str)
# what a summary says of quantization
Quantization = record("Quantization", layers=many(QuantizedLayer), precisions=many(PrecisionRow), costly=many(Costly))
# summary.json
Summary = record(
    "Summary",
    command=str,
    seed=Count,
    versions=dict[str, str],
    device=Device,
    data=Data,
    budget=many(Budget),
    verified=bool,
    best=Network,
    front=many(Network),
    trials=Count,
    seconds=Time,
    original=Original,
    unchanged=bool,
    left_out=list[str],
    slower=str,
    latency=Metrics,
    quantization=Quantization,
    passes=many(Pass),
    timed=dict[str, str],
    time=dict[str, Time],
    cheaper=Network,
    baseline=Beside,
    searched=Beside,
    largest=Metrics,
    smallest=Metrics,
)
# a check of a verification
Check = record("Check", name=str, ok=bool, value=Number | None, expected=Number | None, detail=str)
# a line of sessions.jsonl
Session = record("Session", began=Time, before=Time)
# best/verify.json
Verdict = record("Verdict", ok=bool, checks=many(Check), budgets=many(Budget), metrics=dict[str, Metric], files=dict[str, str])
# a layer of layers.json
LayerRow = record(
    "LayerRow",
    **{"in": Shape},
    name=str,
    op=str,
    out=Shape,
    kernel=tuple[Count, Count],
    stride=tuple[Count, Count],
    groups=Count,
    act=str,
    weight_bits=int | str,
    macs=Count | None,
    params=Count | None,
    ms=Number | None,
)
# the networks of layers.json
Layered = record("Layered", chosen=many(LayerRow), reference=many(LayerRow))
# layers.json
Layers = record("Layers", key=Key, image=Shape, reference=str, networks=Layered)
# the first line of a latency table
Measured = dict[str, Number | str]
TableHead = whole(
    "TableHead", schema=int, name=str, target=Target, entries=Count, made=dict[str, Any], calibration=many(Measured)
)
# architecture.json
Described = record("Described", **_ARCHITECTURE, key=Key, definition=Definition, data=Data)


# units that were cut from a group
CutUnits = whole("CutUnits", group=str, units=many(Count))
# history.json
History = whole("History", blocks=list[str], cuts=many(CutUnits))
# source.json
Source = record(
    "Source",
    network=str,
    classes=Size | None,
    shape=Shape,
    activation=str | None,
    architecture=Described,
    pruned="Source",
    history=History,
)
# quantization.json
Quantized = record(
    "Quantized",
    source=Source,
    shape=Shape,
    points=dict[str, tuple[Number, Number]],
    packed=bool,
    simulated=bool,
    calibration=str,
    equalized=bool,
    corrected=bool,
)
# how far a checkpoint is
Info = record("Info", step=Count)
# a checkpoint's name.json
Pointer = record("Pointer", file=Annotated[str, Meta(pattern=r"^[\w-]+-\d+\.safetensors$")], sha256=str, bytes=Count, info=Info)
# by the name of the file; whole files and logs alike
KINDS: Mapping[str, Any] = {
    "config.json": Config,
    "summary.json": Summary,
    "verify.json": Verdict,
    "layers.json": Layers,
    "architecture.json": Described,
    "source.json": Source,
    "history.json": History,
    "quantization.json": Quantized,
    "trials.jsonl": Trial,
    "training.jsonl": Training,
    "latency.jsonl": Timing,
    "time.jsonl": Spent,
    "stages.jsonl": Stage,
    "cuts.jsonl": Cut,
    "passes.jsonl": Pass,
    "sessions.jsonl": Session,
}
