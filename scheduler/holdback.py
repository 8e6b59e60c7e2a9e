"""What somebody else has locked is left alone for a while, so that everything else goes on (I5)."""

import time
from collections.abc import Callable
from typing import Final

# A look at what is locked costs half a second of waiting, so what stays locked is looked at more and more seldom.
_LEAVE_S: Final = 2.0
_LEAVE_MAX_S: Final = 16.0


class HoldBack:
    """Things by their ids, each left alone until its time is over."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, tuple[float, float]] = {}

    def put(self, key: str) -> None:
        """Leave this alone from now on; twice as long as the last time, if that was just now."""
        now = self._clock()
        self._until = {other: (until, leave_s) for other, (until, leave_s) in self._until.items() if now < until + leave_s}
        _, last_s = self._until.get(key, (now, _LEAVE_S / 2))
        leave_s = min(2 * last_s, _LEAVE_MAX_S)
        self._until[key] = (now + leave_s, leave_s)

    def holds(self, key: str) -> bool:
        """Whether it is to be left alone still."""
        until, _ = self._until.get(key, (0.0, 0.0))
        return self._clock() < until
