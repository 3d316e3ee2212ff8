"""DataConfig: which data set is meant, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.errors import InvalidData, InvalidSetting

LARGEST = 8192  # pixels a side


@dataclass(frozen=True)
class DataConfig:
    """Which data set to load, and how. Raises InvalidSetting if a number is out of its range.

    `name` is a key of `nas.data.load.SOURCES`, with the file or folder in place of FILE and DIR. `data_dir` holds downloads
    (None: ~/.cache/netcarver). `resolution` is the side of the images (None: as stored; 224 for folders). `val_fraction` of
    each training class, drawn with `split_seed`, becomes the validation split. `workers` decode image folders. Each class
    needs `least` training images: 2, or 1 where nothing is trained and classes need not be validated one by one.
    `place` is where the file or folder is, if not where `name` says.
    """

    name: str
    data_dir: Path | None = None
    resolution: int | None = None
    val_fraction: float = 0.1
    split_seed: int = 0
    workers: int = 2
    least: int = 2
    place: Path | None = None

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise InvalidSetting(f"val_fraction is {self.val_fraction}; choose a fraction between 0 and 1, like 0.1")
        if self.resolution is not None and self.resolution < 1:
            raise InvalidSetting(f"resolution is {self.resolution}; choose a side in pixels, like 32")
        if self.resolution is not None and self.resolution > LARGEST:
            raise InvalidSetting(f"resolution is {self.resolution}; choose a side of at most {LARGEST} pixels")
        if self.workers < 0:
            raise InvalidSetting(f"workers is {self.workers}; choose 0 to decode in the main process, or more")

    @property
    def location(self) -> Path:
        """The path behind the colon of `name`. Raises InvalidData if there is none."""
        if self.place is not None:
            return self.place
        path = self.name.partition(":")[2]
        if not path:
            raise InvalidData(f"data {self.name!r} names no path; write it behind the colon, like {self.name}path/to/data")
        return Path(path).expanduser()

    @property
    def cache(self) -> Path:
        """The folder for downloads."""
        return (self.data_dir or Path("~/.cache/netcarver")).expanduser()
