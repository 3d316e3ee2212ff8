"""Target: what a latency belongs to. A number of another target is another number."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Target:
    """Device model, runtime with version, precision, images a batch, threads used of the cores that are there."""

    device: str
    runtime: str
    runtime_version: str
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1
    cores: int = 1

    def difference(self, other: Target) -> str:
        """Say in what `other` differs from this target; empty if it is the same one."""
        ours, theirs = asdict(self), asdict(other)
        parts = [
            f"{name.replace('_', ' ')} {theirs[name]!r} instead of {ours[name]!r}"
            for name in ours
            if ours[name] != theirs[name]
        ]
        return ", ".join(parts)

    @property
    def slug(self) -> str:
        """A file name for this target."""
        parts = (
            self.device,
            self.runtime,
            self.runtime_version,
            self.precision,
            f"b{self.batch}",
            f"t{self.threads}of{self.cores}",
        )
        return "-".join(re.sub(r"[^a-z0-9.]+", "_", part.lower()).strip("_") for part in parts)

    def __str__(self) -> str:
        threads = f"{self.threads} of {self.cores} cores"
        return f"{self.device}, {self.runtime} {self.runtime_version}, {self.precision}, batch {self.batch}, {threads}"
