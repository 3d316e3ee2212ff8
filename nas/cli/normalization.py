"""The normalization of a network that the user brought: what it expects, who says so, and whether the images agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from compress.prune.cifar_resnet import CIFAR_RESNETS, MEAN, STD
from nas.accuracy import standard_error
from nas.cli.shared_settings import ExistingSettings
from nas.data.dataset import Dataset, epoch_batches
from nas.errors import InvalidSetting
from nas.evaluation.supernet import prepared

Values = tuple[float, ...]
BATCH = 32
# training images that normalizations are compared on: as many as so many multiply-adds let through, within bounds
WORK, FEWEST, MOST = 6e10, 32, 256
# how much better another one has to be: in standard errors of the difference, and in points at least
ERRORS, POINTS = 3.0, 0.03


@dataclass(frozen=True)
class Normalization:
    """Mean and deviation of each channel, for pixels in 0..1, and `origin`, who says so."""

    mean: Values
    std: Values
    origin: str

    def __str__(self) -> str:
        mean, std = (", ".join(f"{v:.3g}" for v in values) for values in (self.mean, self.std))
        return f"mean {mean} and deviation {std}"


def given(settings: ExistingSettings, channels: int) -> Normalization | None:
    """What --mean and --std say, None where they do not. Raises InvalidSetting for one alone, and for no numbers."""
    if settings.mean is None and settings.std is None:
        return None
    if settings.mean is None or settings.std is None:
        raise InvalidSetting(
            "--mean and --std go together: give both, such as --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"[:]
        )
    mean, std = _read("--mean", settings.mean, channels), _read("--std", settings.std, channels)
    if not all(v > 0 for v in std):
        raise InvalidSetting(f"--std {settings.std!r}: expected positive numbers")
    return Normalization(mean, std, "--mean and --std")


def expected(text: str, module: nn.Module) -> Normalization | None:
    """What a network says of itself (the attribute `pretrained_cfg` of timm's), or what weights of its library expect."""
    own = getattr(module, "pretrained_cfg", None)
    if isinstance(own, Mapping) and "mean" in own and "std" in own:
        try:
            mean, std = (tuple(float(v) for v in own[name]) for name in ("mean", "std"))
        except (TypeError, ValueError) as error:
            raise InvalidSetting(
                f"{text}: pretrained_cfg has mean {own['mean']!r} and std {own['std']!r}; expected numbers"
            ) from error
        return Normalization(mean, std, "the network's pretrained_cfg")
    if text in CIFAR_RESNETS or text.startswith("torchvision:"):
        return Normalization(MEAN, STD, "ImageNet's, as torchvision's weights expect")
    return None


def of_run(stored: Mapping[str, Any]) -> Normalization | None:
    """What the `data` of the configuration of a run say; None where it had none."""
    return Normalization(tuple(stored["mean"]), tuple(stored["std"]), "its run's") if stored.get("mean") else None


def fitting(known: Normalization | None, data: Dataset) -> Normalization:
    """What images are normalized with: what is known of the network where it has as many channels, else the data's own."""
    if known is None or len(known.mean) != data.channels:
        return Normalization(data.mean, data.std, "the data's own")
    return known


def better(module: nn.Module, data: Dataset, used: Normalization, macs: float) -> tuple[Normalization, float, float] | None:
    """Another normalization under which `module` is clearly more accurate on training images, and both accuracies.

    The data's own, ImageNet's, 0.5 for both, and none at all are tried. None where none of them is clearly better.
    """
    tried = [used, *(other for other in _others(data) if (other.mean, other.std) != (used.mean, used.std))]
    images = int(max(FEWEST, min(MOST, WORK / max(1.0, macs), len(data.train))))
    size = min(BATCH, len(data.train))
    batches = epoch_batches(len(data.train), size, 0, 0)[: -(-images // size)]
    shares = [_accuracy(module, data, one, batches) for one in tried]
    seen = sum(len(batch) for batch in batches)
    best = max(range(len(tried)), key=shares.__getitem__)
    noise = (standard_error(shares[0], seen) ** 2 + standard_error(shares[best], seen) ** 2) ** 0.5
    clear = shares[best] - shares[0] > max(POINTS, ERRORS * noise)
    return (tried[best], shares[0], shares[best]) if clear else None


def advice(name: str, used: Normalization, found: tuple[Normalization, float, float]) -> str:
    """The warning that another normalization fits better, with the options that give it."""
    other, before, after = found
    mean, std = (",".join(f"{v:.6g}" for v in values) for values in (other.mean, other.std))
    return (
        f"warning: {name} is {before:.1%} accurate on training images normalized with {used} ({used.origin}), "
        f"and {after:.1%} with {other} ({other.origin}): it was probably trained with these; give --mean {mean} --std {std}"
    )


# -- parts


def _read(option: str, text: str, channels: int) -> Values:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidSetting(f"{option} {text!r}: expected numbers between commas, such as 0.485,0.456,0.406") from error
    if len(values) not in (1, channels) or not all(isfinite(v) for v in values):
        raise InvalidSetting(f"{option} {text!r}: expected one number, or {channels} for the channels, for pixels in 0..1")
    return values * channels if len(values) == 1 else values


def _others(data: Dataset) -> list[Normalization]:
    channels = data.channels
    other = [Normalization(data.mean, data.std, "the data's own")]
    other += [Normalization(MEAN, STD, "ImageNet's")] if channels == len(MEAN) else []
    other.append(Normalization((0.5,) * channels, (0.5,) * channels, "pixels in -1..1"))
    return [*other, Normalization((0.0,) * channels, (1.0,) * channels, "pixels in 0..1")]


def _accuracy(module: nn.Module, data: Dataset, one: Normalization, batches: list[Tensor]) -> float:
    view, right, seen = replace(data, mean=one.mean, std=one.std), 0, 0
    with torch.no_grad():
        for images, labels in prepared(data.train, batches, view, data.resolution, torch.device("cpu")):
            right += int((module(images).argmax(1) == labels.to("cpu")).sum())
            seen += len(images)
    return right / seen
