"""How many attempts run at once, first come first served."""

import threading
from collections import deque


class Slots:
    """Counts free slots; `take` waits in line, `close` sends everybody who waits home."""

    def __init__(self, n_slots: int) -> None:
        self._free = n_slots
        self._line: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> bool:
        """Wait for a slot and take it; False when there will be none any more."""
        with self._lock:
            if self._closed:
                return False
            if self._free > 0 and not self._line:
                self._free -= 1
                return True
            turn = threading.Event()
            self._line.append(turn)
        turn.wait()
        with self._lock:
            return not self._closed

    def take_over(self) -> None:
        """Occupy a slot for an adopted attempt, whether or not one is free."""
        with self._lock:
            self._free -= 1

    def free(self) -> None:
        """Give a slot back; the first in line has it."""
        with self._lock:
            self._free += 1
            while self._line and self._free > 0:
                self._free -= 1
                self._line.popleft().set()

    @property
    def n_free(self) -> int:
        """How many could be taken now."""
        with self._lock:
            return max(0, self._free)

    def close(self) -> None:
        """No more: everyone in line is told."""
        with self._lock:
            self._closed = True
            while self._line:
                self._line.popleft().set()
