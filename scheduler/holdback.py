"""What somebody else has locked is left alone for a while, so that everything else goes on (I5)."""

import time
from collections.abc import Callable
from typing import Final

# A look at what is locked costs half a second of waiting.
_LEAVE_S: Final = 2.0


class HoldBack:
    """Things by their ids, each left alone until its time is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def put(self, key: str) -> None:
        """Leave this alone from now on."""
        self._until[key] = self._clock() + _LEAVE_S

    def holds(self, key: str) -> bool:
        """Whether it is to be left alone still."""
        if key not in self._until:
            return False
        if self._clock() < self._until[key]:
            return True
        del self._until[key]
        return False
