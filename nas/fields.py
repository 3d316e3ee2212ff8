"""What fields of the files of a run directory hold: numbers within bounds, and names."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

# beyond these no number of a network or of a training lies, and sums and squares would not be numbers any more
Number = Annotated[float, Meta(ge=-1e100, le=1e100)]
Time = Annotated[float, Meta(ge=0, le=1e100)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Size = Annotated[int, Meta(ge=1, le=2**31)]
# names of files and folders: nothing that leads out of the run
Key = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Option = bool | int | float | str
Shape = tuple[Size, Size, Size]
Metrics = dict[str, Number]
