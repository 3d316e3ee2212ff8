"""What a user asked `nas quantize` for, as one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class QuantizeSettings:
    """Options of `nas quantize`; None means a default that depends on the network and the data."""

    network: str = ""
    weights: str | None = None
    precision: str = "int8"
    method: str = "ptq"
    budget: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    bits: tuple[str, ...] = ("2", "3", "4", "6", "8")
    activation_bits: tuple[str, ...] = ("8",)
    sensitivity: str = "ablation"
    calibration: str = "auto"
    images: int = 512
    equalize: bool = True
    correct_bias: bool = True
    data: str | None = None
    data_dir: str | None = None
    resolution: int | None = None
    shape: str | None = None
    finetune_epochs: int | None = None
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float | None = None
    weight_decay: float = 1e-4
    smoothing: float = 0.0
    clip_norm: float = 5.0
    cutout: int = 0
    mixup: float = 0.0
    train_precision: str = "auto"
    runtime: str | None = None
    batch: int = 1
    device: str = "auto"
    threads: int | None = None
    seed: int = 0

    def to_json(self) -> dict[str, object]:
        """Plain data for config.json."""
        return asdict(self)


QUANTIZE_DEFAULTS = QuantizeSettings()
