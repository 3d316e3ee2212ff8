"""What a user asked `nas prune` for, as one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class PruneSettings:
    """Options of `nas prune`; None means a default that depends on the network and the data."""

    network: str = ""
    weights: str | None = None
    budget: tuple[str, ...] = ()
    sweep: str | None = None
    method: str = "cut"
    importance: str = "auto"
    allocation: str = "auto"
    steps: int = 1
    depth: bool = False
    compensate: bool = True
    round_to: int = 8
    least: float = 0.1
    sparsity: float | None = None
    pattern: str = "global"
    activation: str | None = None
    grow_epochs: int = 30
    max_drop: float = 1.0
    data: str | None = None
    data_dir: str | None = None
    resolution: int | None = None
    shape: str | None = None
    finetune_epochs: int | None = None
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float | None = None
    weight_decay: float = 1e-4
    smoothing: float = 0.0
    clip_norm: float = 5.0
    cutout: int = 0
    mixup: float | None = None
    train_precision: str = "auto"
    runtime: str | None = None
    precision: str = "fp32"
    batch: int = 1
    device: str = "auto"
    threads: int | None = None
    seed: int = 0

    def to_json(self) -> dict[str, object]:
        """Plain data for config.json."""
        return asdict(self)


PRUNE_DEFAULTS = PruneSettings()
