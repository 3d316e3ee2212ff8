"""The settings that commands on an existing network share, as frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is fine-tuned; None means a default that depends on the network and the data."""

    finetune_epochs: int | None = None
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float | None = None
    weight_decay: float = 1e-4
    smoothing: float = 0.0
    clip_norm: float = 5.0
    flip: bool | None = None
    crop: int | None = None
    cutout: int = 0
    mixup: float | None = None
    train_precision: str = "auto"


@dataclass(frozen=True)
class ExistingSettings(TrainingSettings):
    """A network that the user has, what it may cost, its data, how it is fine-tuned, and where it is timed."""

    network: str = ""
    weights: str | None = None
    budget: tuple[str, ...] = ()
    data: str | None = None
    data_dir: str | None = None
    resolution: int | None = None
    shape: str | None = None
    mean: str | None = None
    std: str | None = None
    runtime: str | None = None
    batch: int = 1
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    data_at: str | None = None  # no option: where the data of a run are, see places.py

    @property
    def trains(self) -> bool:
        """Whether anything is trained where there are data."""
        raise NotImplementedError

    def to_json(self) -> dict[str, object]:
        """Plain data for config.json, but for what is of this machine."""
        return {name: value for name, value in asdict(self).items() if name != "data_at"}
