"""How far a calibration is: passes of a batch of images through a network that were made, and those that are left at most."""

from __future__ import annotations

from collections.abc import Callable


class Passes:
    """Counts passes and tells (those made, all of them at most): candidates that drop out of a race lower the second."""

    def __init__(self, tell: Callable[[int, int], None] = lambda made, most: None) -> None:
        self._tell, self._made, self._left = tell, 0, 0

    def expect(self, passes: int) -> None:
        """So many passes are left in addition, or fewer than were expected where the number is negative."""
        self._left = max(0, self._left + passes)

    def made(self) -> None:
        """One more was made."""
        self._made += 1
        self.expect(-1)
        self._tell(self._made, self._made + self._left)
