"""What a user asked `nas quantize` for, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from nas.cli.shared_settings import ExistingSettings


@dataclass(frozen=True)
class QuantizeSettings(ExistingSettings):
    """Options of `nas quantize`; None means a default that depends on the network and the data."""

    precision: str = "int8"
    method: str = "ptq"
    keep: tuple[str, ...] = ()
    bits: tuple[str, ...] = ("2", "3", "4", "6", "8")
    activation_bits: tuple[str, ...] = ("8",)
    sensitivity: str = "ablation"
    calibration: str = "auto"
    images: int = 512
    equalize: bool = True
    correct_bias: bool = True
    batch_size: int = 128
    mixup: float = 0.0

    @property
    def trains(self) -> bool:
        """Whether the rounded network is trained."""
        return self.method == "qat"


QUANTIZE_DEFAULTS = QuantizeSettings()
