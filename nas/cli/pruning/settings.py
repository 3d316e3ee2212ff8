"""What a user asked `nas prune` for, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from nas.cli.shared_settings import ExistingSettings

SPARSE = "sparse"


@dataclass(frozen=True)
class PruneSettings(ExistingSettings):
    """Options of `nas prune`; None means a default that depends on the network and the data."""

    sweep: str | None = None
    method: str = "cut"
    importance: str = "auto"
    allocation: str = "auto"
    steps: int = 1
    depth: bool = False
    compensate: bool = True
    round_to: int | None = None
    least: float = 0.1
    sparsity: float | None = None
    pattern: str = "global"
    activation: str | None = None
    grow_epochs: int = 30
    max_drop: float = 1.0
    precision: str = "fp32"

    @property
    def trains(self) -> bool:
        """Whether anything is trained where there are data: the cut network, or one that grows."""
        return self.finetune_epochs != 0 or self.method == "grow"

    @property
    def zeros(self) -> float | None:
        """The share of weights that is to be zero; None for methods that set none, whatever a recipe says for all passes."""
        return self.sparsity if self.method == SPARSE else None


PRUNE_DEFAULTS = PruneSettings()
